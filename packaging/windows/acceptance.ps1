#Requires -Version 5.1
<#
.SYNOPSIS
Checks an installed REA on a real Windows: all that can be proven nowhere else.

.DESCRIPTION
Reads only, unless -Disruptive is given. Prints a table, or JSON, and ends with 1
if anything does not hold. What cannot be checked says why: that is "skip", and
no success. Run it as an administrator.

.PARAMETER Disruptive
Also kills and stops the service, and makes, clears and overflows an event log of
its own, REA-Acceptance, which it removes again. For machines that are there to be
tried on.

.PARAMETER Json
Prints JSON instead of a table.

.PARAMETER Seconds
How long processor, memory and handles of the service are watched.

.PARAMETER MaxCpuPercent
.PARAMETER MaxMemoryMiB
What the service may take of one processor, and of private memory, meanwhile.

.PARAMETER StatusPort
The port of the status page ([status] in agent.toml). Where it is off, what only
the page says is skipped.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File acceptance.ps1 -Disruptive
#>
[CmdletBinding()]
param(
  [switch]$Disruptive,
  [switch]$Json,
  [ValidateRange(5, 3600)][int]$Seconds = 60,
  [double]$MaxCpuPercent = 2,
  [double]$MaxMemoryMiB = 60,
  [int]$StatusPort = 9100
)

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$serviceName = 'REA'
$account = 'NT SERVICE\REA'
$data = Join-Path $env:ProgramData 'REA'
$registry = "HKLM:\SYSTEM\CurrentControlSet\Services\$serviceName"
$logReaders = 'S-1-5-32-573' # Event Log Readers, whatever it is called here
$system = 'S-1-5-18'
$administrators = 'S-1-5-32-544'
$trustedInstaller = 'S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464'
$mebibyte = 1048576

$results = New-Object System.Collections.Generic.List[object]

# Check runs one check. What it returns is the detail; it throws what does not hold.
function Check([string]$Name, [scriptblock]$Body) {
  $result = 'ok'
  try {
    $detail = (& $Body | Out-String).Trim()
  } catch {
    $detail = $_.Exception.Message
    $result = 'FAIL'
    if ($detail.StartsWith('skip: ')) {
      $result = 'skip'
      $detail = $detail.Substring(6)
    }
  }
  $results.Add([pscustomobject]@{ check = $Name; result = $result; detail = $detail })
}

function Skip([string]$Why) { throw "skip: $Why" }

function Expect($What, $Got, $Want) {
  if ($Got -ne $Want) { throw "$What is '$Got', want '$Want'" }
}

function SidOf([string]$Name) {
  (New-Object System.Security.Principal.NTAccount $Name).Translate([System.Security.Principal.SecurityIdentifier]).Value
}

# Rights returns the entries of a list of rights: SID, mask, and whether it allows.
function Rights([string]$Path) {
  $acl = Get-Acl -LiteralPath $Path
  foreach ($rule in $acl.GetAccessRules($true, $true, [System.Security.Principal.SecurityIdentifier])) {
    [pscustomobject]@{
      sid = $rule.IdentityReference.Value; mask = [int]$rule.FileSystemRights
      allow = "$($rule.AccessControlType)" -eq 'Allow'; inherited = $rule.IsInherited
      below = "$($rule.PropagationFlags)" -match 'InheritOnly'
    }
  }
}

function OwnerOf([string]$Path) {
  (Get-Acl -LiteralPath $Path).GetOwner([System.Security.Principal.SecurityIdentifier]).Value
}

# Everything of write, delete, change rights and take over, and the generic bits.
$changing = 0x2 -bor 0x4 -bor 0x10 -bor 0x40 -bor 0x100 -bor 0x10000 -bor 0x40000 -bor 0x80000 -bor 0x10000000 -bor 0x40000000

# OthersMay returns who, beside those named, has any of the rights.
function OthersMay([string]$Path, [int]$Mask, [string[]]$Trusted) {
  @(Rights $Path | Where-Object { $_.allow -and -not $_.below -and ($_.mask -band $Mask) -and $Trusted -notcontains $_.sid } | ForEach-Object { $_.sid })
}

function ServiceProcess {
  $s = Get-CimInstance Win32_Service -Filter "Name='$serviceName'"
  if (-not $s -or $s.ProcessId -eq 0) { throw "the service $serviceName does not run" }
  Get-Process -Id $s.ProcessId
}

function Program {
  $image = (Get-ItemProperty $registry).ImagePath
  if ($image -notmatch '^"([^"]+\\rea-agent\.exe)"( |$)') { throw "its command is not quoted, or another program: $image" }
  $Matches[1]
}

# Health returns what the status page says; 503 is an answer too.
function Health {
  $uri = "http://127.0.0.1:$StatusPort/healthz"
  try {
    $text = (New-Object System.Net.WebClient).DownloadString($uri)
  } catch {
    $web = $_.Exception
    while ($web -and -not ($web -is [System.Net.WebException])) { $web = $web.InnerException }
    if (-not $web -or -not $web.Response) { Skip "no status page on port $StatusPort ([status] enabled = true)" }
    $text = (New-Object System.IO.StreamReader $web.Response.GetResponseStream()).ReadToEnd()
  }
  $text | ConvertFrom-Json
}

# The token of a running service: what Windows really gave it.
Add-Type -TypeDefinition @'
using System;
using System.Collections.Generic;
using System.ComponentModel;
using System.Runtime.InteropServices;
using System.Security.Principal;
using System.Text;

public static class ReaToken {
    [DllImport("kernel32.dll", SetLastError = true)] static extern IntPtr OpenProcess(uint access, bool inherit, int pid);
    [DllImport("kernel32.dll")] static extern bool CloseHandle(IntPtr h);
    [DllImport("advapi32.dll", SetLastError = true)] static extern bool OpenProcessToken(IntPtr process, uint access, out IntPtr token);
    [DllImport("advapi32.dll", SetLastError = true)] static extern bool GetTokenInformation(IntPtr token, int level, IntPtr buffer, int size, out int needed);
    [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)] static extern bool LookupPrivilegeName(string system, ref long luid, StringBuilder name, ref int length);

    const uint QueryLimitedInformation = 0x1000, TokenQuery = 0x8;
    const int TokenUser = 1, TokenGroups = 2, TokenPrivileges = 3;

    static IntPtr Information(int pid, int level) {
        IntPtr process = OpenProcess(QueryLimitedInformation, false, pid);
        if (process == IntPtr.Zero) throw new Win32Exception();
        try {
            IntPtr token;
            if (!OpenProcessToken(process, TokenQuery, out token)) throw new Win32Exception();
            try {
                int needed;
                GetTokenInformation(token, level, IntPtr.Zero, 0, out needed);
                IntPtr buffer = Marshal.AllocHGlobal(needed);
                if (!GetTokenInformation(token, level, buffer, needed, out needed)) throw new Win32Exception();
                return buffer;
            } finally { CloseHandle(token); }
        } finally { CloseHandle(process); }
    }

    public static string User(int pid) {
        IntPtr b = Information(pid, TokenUser);
        try { return new SecurityIdentifier(Marshal.ReadIntPtr(b)).Value; } finally { Marshal.FreeHGlobal(b); }
    }

    public static string[] Groups(int pid) {
        IntPtr b = Information(pid, TokenGroups);
        try {
            var list = new List<string>();
            for (int i = 0; i < Marshal.ReadInt32(b); i++)
                list.Add(new SecurityIdentifier(Marshal.ReadIntPtr(b, IntPtr.Size * (1 + 2 * i))).Value);
            return list.ToArray();
        } finally { Marshal.FreeHGlobal(b); }
    }

    public static string[] Privileges(int pid) {
        IntPtr b = Information(pid, TokenPrivileges);
        try {
            var list = new List<string>();
            for (int i = 0; i < Marshal.ReadInt32(b); i++) {
                long luid = (uint)Marshal.ReadInt32(b, 4 + 12 * i) | (long)Marshal.ReadInt32(b, 8 + 12 * i) << 32;
                var name = new StringBuilder(256);
                int length = name.Capacity;
                if (!LookupPrivilegeName(null, ref luid, name, ref length)) throw new Win32Exception();
                list.Add(name.ToString());
            }
            return list.ToArray();
        } finally { Marshal.FreeHGlobal(b); }
    }
}
'@

Check 'run as an administrator' {
  $me = New-Object System.Security.Principal.WindowsPrincipal ([System.Security.Principal.WindowsIdentity]::GetCurrent())
  if (-not $me.IsInRole([System.Security.Principal.WindowsBuiltInRole]::Administrator)) { throw 'no: most of the rest cannot be read' }
}

# --- program ---------------------------------------------------------------------

Check 'program: quoted path, version' {
  $version = (Get-Item -LiteralPath (Program)).VersionInfo
  $says = & (Program) --version
  if ("$says" -notlike "*$($version.ProductVersion)*") { throw "it shows $($version.ProductVersion) and says $says" }
  "$(Program) $($version.ProductVersion)"
}

Check 'program: nobody but administrators can change it' {
  foreach ($path in (Program), (Split-Path (Program))) {
    $who = OthersMay $path $changing @($system, $administrators, $trustedInstaller, 'S-1-3-0')
    if ($who) { throw "$path can be changed by $($who -join ', ')" }
  }
}

Check 'program: signed' {
  $signature = Get-AuthenticodeSignature -LiteralPath (Program)
  if ("$($signature.Status)" -eq 'NotSigned') { Skip 'this build is not signed' }
  Expect 'the signature' $signature.Status 'Valid'
  $signature.SignerCertificate.Subject
}

# --- folders ---------------------------------------------------------------------

Check 'folders: exactly these rights, nothing inherited' {
  $service = SidOf $account
  foreach ($name in '', 'queue', 'logs', 'identity') {
    $path = if ($name) { Join-Path $data $name } else { $data }
    $item = Get-Item -LiteralPath $path -Force
    if ($item.Attributes -band [System.IO.FileAttributes]::ReparsePoint) { throw "$path is a reparse point" }
    if (-not (Get-Acl -LiteralPath $path).AreAccessRulesProtected) { throw "$path inherits rights" }
    Expect "the owner of $path" (OwnerOf $path) $administrators
    $want = @("$system 1f01ff", "$administrators 1f01ff", $(if ($name) { "$service 1301bf" } else { "$service 1200a9" }))
    $got = @(Rights $path | ForEach-Object { if (-not $_.allow) { throw "$path denies something to $($_.sid)" }; '{0} {1:x}' -f $_.sid, $_.mask })
    $difference = Compare-Object $want $got
    if ($difference) { throw "${path}: " + (($difference | ForEach-Object { "$($_.SideIndicator) $($_.InputObject)" }) -join ', ') }
  }
  $data
}

Check 'folders: nothing below that others could read or change' {
  $service = SidOf $account
  $n = 0
  foreach ($item in Get-ChildItem -LiteralPath $data -Recurse -Force) {
    if ($item.Attributes -band [System.IO.FileAttributes]::ReparsePoint) { throw "$($item.FullName) is a reparse point" }
    try {
      $who = OthersMay $item.FullName -1 @($system, $administrators, $service)
      $owner = OwnerOf $item.FullName
    } catch {
      if (Test-Path -LiteralPath $item.FullName) { throw }
      continue # the queue is in use, and removes what was delivered
    }
    $n++
    if ($who) { throw "$($item.FullName) is open to $($who -join ', ')" }
    if (@($system, $administrators, $service) -notcontains $owner) { throw "$($item.FullName) belongs to $owner" }
  }
  "$n files and folders"
}

Check 'folders: the service cannot change its configuration' {
  $file = Join-Path $data 'agent.toml'
  if (-not (Test-Path -LiteralPath $file)) { Skip "no $file" }
  $who = OthersMay $file $changing @($system, $administrators)
  if ($who) { throw "$file can be changed by $($who -join ', ')" }
}

# --- service ---------------------------------------------------------------------

Check 'service: runs' {
  $p = ServiceProcess
  "process $($p.Id), since $($p.StartTime.ToString('s'))"
}

Check 'service: name and description for people' {
  $s = Get-CimInstance Win32_Service -Filter "Name='$serviceName'"
  if (-not $s.DisplayName -or -not $s.Description) { throw 'has no name or no description' }
  "$($s.DisplayName): $($s.Description)"
}

Check 'service: its own account' {
  Expect 'the account' (Get-CimInstance Win32_Service -Filter "Name='$serviceName'").StartName $account
  Expect 'the user of the process' ([ReaToken]::User((ServiceProcess).Id)) (SidOf $account)
  $account
}

Check 'service: no privileges but one' {
  $got = @([ReaToken]::Privileges((ServiceProcess).Id))
  if (($got -join ' ') -ne 'SeChangeNotifyPrivilege') { throw "the process has $($got -join ' ')" }
  $got -join ' '
}

Check 'service: no administrator, but a reader of event logs' {
  $groups = [ReaToken]::Groups((ServiceProcess).Id)
  if ($groups -contains $administrators) { throw 'the process is in the group of administrators' }
  if ($groups -notcontains $logReaders) { throw "the process is not in $logReaders; the service may have to be started again" }
}

Check 'service: delayed automatic start' {
  $r = Get-ItemProperty $registry
  Expect 'Start' $r.Start 2
  Expect 'DelayedAutostart' $r.DelayedAutostart 1
}

Check 'service: recovery after 5 s, 60 s, then none; forgotten after a day' {
  # SERVICE_FAILURE_ACTIONS as the registry has it: reset, two pointers, count,
  # a pointer, then type and delay of each.
  $r = Get-ItemProperty $registry
  $words = @(for ($i = 0; $i -lt $r.FailureActions.Length; $i += 4) { [BitConverter]::ToUInt32($r.FailureActions, $i) })
  Expect 'the reset' $words[0] 86400
  Expect 'the number of actions' $words[3] 3
  Expect 'the actions' (($words[5..10]) -join ' ') '1 5000 1 60000 0 0'
  Expect 'FailureActionsOnNonCrashFailures' $r.FailureActionsOnNonCrashFailures 1
}

Check 'service: is told first of a shutdown' {
  Expect 'PreshutdownTimeout' (Get-ItemProperty $registry).PreshutdownTimeout 30000
  # What it takes while it runs: words of sc.exe that are the same in all languages.
  $takes = & sc.exe query $serviceName | Out-String
  foreach ($word in '(STOPPABLE,', 'ACCEPTS_PRESHUTDOWN') { if ($takes -notlike "*$word*") { throw "it is not ${word}: $takes" } }
  '30 s'
}

Check 'service: its event source' {
  $key = "HKLM:\SYSTEM\CurrentControlSet\Services\EventLog\Application\$serviceName"
  if (-not (Test-Path $key)) { throw "no $key" }
}

Check 'service: the only thing that stays' {
  $tasks = @(Get-ScheduledTask | Where-Object { @($_.Actions | Where-Object { $_.PSObject.Properties['Execute'] -and "$($_.Execute)" -like '*rea-agent*' }) })
  if ($tasks) { throw "scheduled: $(($tasks | ForEach-Object { $_.TaskName }) -join ', ')" }
  foreach ($run in 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Run', 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\RunOnce') {
    if ((Test-Path $run) -and "$((Get-Item $run).GetValueNames() | ForEach-Object { (Get-Item $run).GetValue($_) })" -like '*rea-agent*') { throw "started by $run" }
  }
}

Check 'service: listens on this machine only' {
  $ends = @(Get-NetTCPConnection -State Listen -ErrorAction SilentlyContinue | Where-Object OwningProcess -eq (ServiceProcess).Id)
  foreach ($e in $ends) {
    if (@('127.0.0.1', '::1') -notcontains $e.LocalAddress) { throw "listens on $($e.LocalAddress):$($e.LocalPort)" }
  }
  "$($ends.Count) ports"
}

# --- event log -------------------------------------------------------------------

Check 'event log: Security lets Event Log Readers read' {
  $access = (New-Object System.Diagnostics.Eventing.Reader.EventLogConfiguration 'Security').SecurityDescriptor
  if ($access -notlike "*;$logReaders)*" -and $access -notlike '*;ER)*') { throw "its rights are $access" }
}

Check 'event log: the agent reads Security' {
  $health = Health
  $sources = $health.PSObject.Properties['sources']
  if (-not $sources -or -not $sources.Value.PSObject.Properties['eventlog']) { Skip 'the agent does not read event logs' }
  $source = $sources.Value.eventlog
  if (-not $source.PSObject.Properties['parts'] -or -not $source.parts.PSObject.Properties['Security']) { Skip 'the agent does not read Security' }
  Expect 'Security' $source.parts.Security.state 'ok'
}

Check 'agent: healthy' {
  $health = Health
  if ($health.status -ne 'ok') { throw "$($health.status): $(if ($health.PSObject.Properties['reasons']) { $health.reasons -join '; ' })" }
  $health.version
}

# --- cost ------------------------------------------------------------------------

# EventsOf returns how many events the agent has numbered since it started.
function EventsOf {
  try {
    $text = (New-Object System.Net.WebClient).DownloadString("http://127.0.0.1:$StatusPort/metrics")
  } catch { return $null }
  $sum = 0
  foreach ($line in $text -split "`n") { if ($line -match '^rea_events_emitted_total\S* (\d+)') { $sum += [long]$Matches[1] } }
  $sum
}

Check "cost: $Seconds seconds of the service" {
  $before = ServiceProcess
  $events = EventsOf
  $cpu = $before.TotalProcessorTime.TotalSeconds
  $handles = $before.HandleCount
  $peak = 0
  $clock = [System.Diagnostics.Stopwatch]::StartNew()
  while ($clock.Elapsed.TotalSeconds -lt $Seconds) {
    Start-Sleep -Seconds 1
    $now = ServiceProcess
    $peak = [Math]::Max($peak, $now.PrivateMemorySize64)
  }
  Expect 'the process' $now.Id $before.Id
  $percent = ($now.TotalProcessorTime.TotalSeconds - $cpu) / $clock.Elapsed.TotalSeconds * 100
  $rate = if ($null -ne $events) { '{0:n1} events/s, ' -f (((EventsOf) - $events) / $clock.Elapsed.TotalSeconds) } else { '' }
  $detail = '{0}{1:n2} % of one processor, {2:n1} MiB private, {3} handles ({4:+0;-0;0})' -f $rate, $percent, ($peak / $mebibyte), $now.HandleCount, ($now.HandleCount - $handles)
  if ($percent -gt $MaxCpuPercent -or $peak / $mebibyte -gt $MaxMemoryMiB -or $now.HandleCount - $handles -gt 50) { throw $detail }
  $detail
}

# --- what changes something ------------------------------------------------------

# Wait returns the seconds until the block says yes.
function Wait([int]$Limit, [string]$For, [scriptblock]$Body) {
  $clock = [System.Diagnostics.Stopwatch]::StartNew()
  while (-not (& $Body)) {
    if ($clock.Elapsed.TotalSeconds -gt $Limit) { throw "not within $Limit s: $For" }
    Start-Sleep -Milliseconds 100
  }
  $clock.Elapsed.TotalSeconds
}

function RunsAs { (Get-CimInstance Win32_Service -Filter "Name='$serviceName'").ProcessId }

if (-not $Disruptive) {
  foreach ($name in 'recovery: killed, it comes back', 'reload, stop and start', 'event log: read, cleared, overwritten', 'event log: events a second, and what they cost') {
    Check $name { Skip 'changes something: -Disruptive' }
  }
} else {
  Check 'recovery: killed, it comes back' {
    $old = RunsAs
    Stop-Process -Id $old -Force
    $after = Wait 40 'a new process' { $now = RunsAs; $now -ne 0 -and $now -ne $old }
    if ($after -lt 3) { throw ('after {0:n1} s: something else than the recovery of Windows started it' -f $after) }
    'after {0:n1} s' -f $after
  }

  Check 'reload, stop and start' {
    $id = RunsAs
    & sc.exe control $serviceName paramchange | Out-Null
    if ($LASTEXITCODE) { throw "reload: sc.exe ended with $LASTEXITCODE" }
    Start-Sleep -Seconds 2
    Expect 'the process after a reload' (RunsAs) $id
    $clock = [System.Diagnostics.Stopwatch]::StartNew()
    Stop-Service $serviceName
    $stop = $clock.Elapsed.TotalSeconds
    $clock.Restart()
    Start-Service $serviceName
    $start = $clock.Elapsed.TotalSeconds
    if ($stop -gt 30 -or $start -gt 30) { throw ('stopped in {0:n1} s, started in {1:n1} s' -f $stop, $start) }
    'stopped in {0:n1} s, started in {1:n1} s' -f $stop, $start
  }

  # An agent of its own, with a folder of its own, reads a log of its own, and then
  # those of this machine: neither the service nor its data are in play.
  $log = 'REA-Acceptance'
  $folder = Join-Path $env:ProgramData $log
  $file = Join-Path $folder 'events.ndjson'

  function MakeFolder {
    if (Test-Path -LiteralPath $folder) { throw "the folder $folder is there already: remove it" }
    New-Item -ItemType Directory -Path $folder | Out-Null
    & icacls.exe $folder /inheritance:r /grant "*${system}:(OI)(CI)F" "*${administrators}:(OI)(CI)F" | Out-Null
    & icacls.exe $folder /setowner "*$administrators" | Out-Null
  }
  function Configure([string]$Channels) {
    $off = foreach ($c in 'cpu', 'memory', 'disk', 'network', 'process', 'host') { "[collectors.$c]`nenabled = false" }
    $toml = @"
[collectors]
win_eventlog_channels = [$Channels]
win_eventlog_start_at = "oldest"
win_eventlog_rps = 100000
[logging]
mode = "file"
file_path = '$file'
rotate_bytes = 0
$($off -join "`n")
"@
    [System.IO.File]::WriteAllText((Join-Path $folder 'agent.toml'), $toml)
  }
  function StartAgent { Start-Process -FilePath (Program) -ArgumentList 'run', '--config', "`"$(Join-Path $folder 'agent.toml')`"" -WindowStyle Hidden -PassThru -RedirectStandardError (Join-Path $folder 'agent.log') }
  function EndAgent($Agent) {
    if ($Agent -and -not $Agent.HasExited) { Stop-Process -Id $Agent.Id -Force; $Agent.WaitForExit() }
  }
  # KillAgent ends the agent when it has written down up to where it has read, which
  # it does each three seconds: so what it declares missing later can be counted.
  function KillAgent($Agent) { Start-Sleep -Seconds 5; EndAgent $Agent }
  function Lines([string]$Kind) {
    if (-not (Test-Path -LiteralPath $file)) { return }
    $in = New-Object System.IO.StreamReader (New-Object System.IO.FileStream $file, 'Open', 'Read', 'ReadWrite, Delete')
    try { $in.ReadToEnd() -split "`n" | Where-Object { $_ -like "*$log*" -and $_ -like "*`"kind`":`"$Kind`"*" } } finally { $in.Dispose() }
  }
  # Numbers returns which events were read, by their number.
  function Numbers { @(Lines 'eventlog' | ForEach-Object { if ($_ -match 'event (\d+)\.') { [int]$Matches[1] } } | Sort-Object -Unique) }
  function Gaps([string]$Cause) { @(Lines 'gap' | ForEach-Object { $_ | ConvertFrom-Json } | Where-Object { $_.gap.cause -eq $Cause }) }
  function Publish([int]$From, [int]$Count, [string]$Text) {
    for ($i = $From; $i -lt $From + $Count; $i++) { [System.Diagnostics.EventLog]::WriteEntry($log, "event $i. $Text", 'Information', 1) }
  }

  Check 'event log: read, cleared, overwritten' {
    if ([System.Diagnostics.EventLog]::Exists($log)) { throw "the log $log is there already: remove it" }
    $agent = $null
    MakeFolder
    try {
      New-EventLog -LogName $log -Source $log
      Limit-EventLog -LogName $log -MaximumSize 1MB -OverflowAction OverwriteAsNeeded
      Configure "`"$log`""

      # Read while they are written, each once.
      $agent = StartAgent
      Publish 0 100 ''
      Wait 60 'the first events' { @(Numbers).Count -ge 100 } | Out-Null
      $clock = [System.Diagnostics.Stopwatch]::StartNew()
      Publish 100 1900 ''
      Wait 120 '2000 events' { @(Numbers).Count -ge 2000 } | Out-Null
      $rate = 1900 / $clock.Elapsed.TotalSeconds
      KillAgent $agent
      $read = @(Lines 'eventlog').Count
      Expect 'the number of events' $read 2000

      # Cleared while the agent is away, and begun again.
      Publish 2000 50 ''
      Clear-EventLog -LogName $log
      Publish 2050 50 ''
      $agent = StartAgent
      Wait 90 'a gap event with the cause log_cleared' { @(Gaps 'log_cleared').Count -ge 1 } | Out-Null
      Wait 60 'the events after it was cleared' { @(Numbers).Count -ge 2050 } | Out-Null
      KillAgent $agent

      # Overwritten while the agent is away: 4,000 events of a kilobyte into one
      # megabyte.
      Publish 2100 4000 ('x' * 1000)
      $agent = StartAgent
      Wait 120 'a gap event with the cause log_wrapped' { @(Gaps 'log_wrapped').Count -ge 1 } | Out-Null
      Wait 120 'the last event' { (Numbers) -contains 6099 } | Out-Null
      $missing = (Gaps 'log_wrapped' | ForEach-Object { $_.gap.count } | Measure-Object -Sum).Sum
      $have = @(Numbers).Count - 2050
      if ($have + $missing -ne 4000) { throw "of 4000 events $have were read and $missing declared missing" }
      '{0:n0} events/s while written one by one; cleared and overwritten told; {1} read and {2} declared of 4000' -f $rate, $have, $missing
    } finally {
      EndAgent $agent
      if ([System.Diagnostics.EventLog]::Exists($log)) { Remove-EventLog -LogName $log }
      Remove-Item -LiteralPath $folder -Recurse -Force -ErrorAction SilentlyContinue
    }
  }

  # All that the logs of this machine hold, from the oldest record on. It ends when
  # nothing came for five seconds, or after two minutes.
  Check 'event log: events a second, and what they cost' {
    $agent = $null
    MakeFolder
    try {
      Configure '"System", "Application", "Security"'
      $agent = StartAgent
      Wait 60 'the first events' { (Test-Path -LiteralPath $file) -and (Get-Item -LiteralPath $file).Length -gt 0 } | Out-Null
      $clock = [System.Diagnostics.Stopwatch]::StartNew()
      $size = 0
      $grown = 0
      while ($clock.Elapsed.TotalSeconds -lt [Math]::Min(120, $grown + 5)) {
        Start-Sleep -Milliseconds 100
        $now = (Get-Item -LiteralPath $file).Length
        if ($now -ne $size) { $size = $now; $grown = $clock.Elapsed.TotalSeconds }
      }
      $agent.Refresh()
      $cpu = $agent.TotalProcessorTime.TotalMilliseconds
      EndAgent $agent
      $events = 0
      foreach ($line in [System.IO.File]::ReadLines($file)) { $events++ }
      if ($events -lt 2000 -or $grown -lt 0.5) { Skip "only $events events in these logs" }
      '{0:n0} events in {1:n1} s: {2:n0} events/s, {3:n3} ms of one processor each' -f $events, $grown, ($events / $grown), ($cpu / $events)
    } finally {
      EndAgent $agent
      Remove-Item -LiteralPath $folder -Recurse -Force -ErrorAction SilentlyContinue
    }
  }
}

# --- results ---------------------------------------------------------------------

$failed = @($results | Where-Object result -eq 'FAIL').Count
if ($Json) {
  $os = Get-CimInstance Win32_OperatingSystem
  [pscustomobject]@{
    time = (Get-Date).ToUniversalTime().ToString('s') + 'Z'; system = "$($os.Caption) $($os.Version)"; disruptive = [bool]$Disruptive
    failed = $failed; results = $results
  } | ConvertTo-Json -Depth 4
} else {
  $results | Format-Table -AutoSize -Wrap -Property @('result', 'check', 'detail') | Out-String -Width 160
  "$($results.Count) checks: $(@($results | Where-Object result -eq 'ok').Count) ok, $failed failed, $(@($results | Where-Object result -eq 'skip').Count) skipped"
}
exit ([int]($failed -gt 0))
