#Requires -Version 5.1
<#
.SYNOPSIS
Installs, replaces and removes the package on a machine that is there for that.

.DESCRIPTION
trial.ps1 install|replace|remove|enroll|purge PACKAGE. Each step says what it
found, and ends with an error where that is not as it should be. The log of the
installer is STEP.log.
#>
[CmdletBinding()]
param(
  [Parameter(Mandatory)][ValidateSet('install', 'replace', 'remove', 'enroll', 'purge')][string]$Step,
  [Parameter(Mandatory)][string]$Package
)

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$data = Join-Path $env:ProgramData 'REA'
$config = Join-Path $data 'agent.toml'
$mark = Join-Path $data 'queue\kept-by-trial'
$program = Join-Path $env:ProgramFiles 'REA\rea-agent.exe'

function Installer([string]$Verb, [string[]]$Properties, [int]$Want = 0) {
  $log = "$Step.log"
  $words = @($Verb, "`"$((Resolve-Path $Package).Path)`"", '/qn', '/norestart', '/l*v', "`"$log`"") + $Properties
  $p = Start-Process msiexec.exe -ArgumentList $words -Wait -PassThru
  if ($p.ExitCode -ne $Want) {
    Get-Content $log -Tail 60 | Write-Output
    throw "msiexec $Verb ended with $($p.ExitCode), want $Want"
  }
}

function Expect([bool]$Holds, [string]$What) {
  if (-not $Holds) { throw "not so: $What" }
  Write-Output "ok    $What"
}

function Present { [bool](Get-Service REA -ErrorAction SilentlyContinue) }
function Running { (Present) -and (Get-Service REA).Status -eq 'Running' }

# The readers of event logs, by the number of their group, since its name depends on
# the language, and the service among them: its SID is the SHA-1 of its name.
$readers = (New-Object System.Security.Principal.SecurityIdentifier 'S-1-5-32-573').Translate([System.Security.Principal.NTAccount]).Value.Split('\')[-1]
$hash = [System.Security.Cryptography.SHA1]::Create().ComputeHash([System.Text.Encoding]::Unicode.GetBytes('REA'))
$sid = 'S-1-5-80-' + ((0..4 | ForEach-Object { [BitConverter]::ToUInt32($hash, 4 * $_) }) -join '-')
function Member {
  foreach ($member in @(([ADSI]"WinNT://./$readers,group").psbase.Invoke('Members'))) {
    $bytes = $member.GetType().InvokeMember('objectSid', 'GetProperty', $null, $member, $null)
    if ((New-Object System.Security.Principal.SecurityIdentifier $bytes, 0).Value -eq $sid) { return $true }
  }
  $false
}

switch ($Step) {
  'install' {
    Installer /i
    Expect (Running) 'the service runs'
    Expect (Member) 'its account is one of the Event Log Readers'
    Add-Content -LiteralPath $config -Value "`r`n[status]`r`nenabled = true`r`n"
    Set-Content -LiteralPath $mark -Value 'kept'
    Restart-Service REA
    Expect (Running) 'the service runs with another configuration'
  }
  'replace' {
    $before = (Get-Item -LiteralPath $program).VersionInfo.ProductVersion
    & sc.exe config REA start= demand | Out-Null # a choice of the operator
    Installer /i
    $after = (Get-Item -LiteralPath $program).VersionInfo.ProductVersion
    Expect ($before -ne $after) "the program was $before and is $after"
    Expect (Running) 'the service runs'
    Expect ((Get-CimInstance Win32_Service -Filter "Name='REA'").StartMode -eq 'Manual') 'the service is as it was set up'
    Expect (Test-Path -LiteralPath $mark) 'data stays'
    Expect ((Get-Content -LiteralPath $config -Raw) -like '*enabled = true*') 'configuration stays'
    & sc.exe config REA start= delayed-auto | Out-Null
  }
  'remove' {
    Installer /x
    Expect (-not (Present)) 'the service is gone'
    Expect (-not (Test-Path -LiteralPath $program)) 'the program is gone'
    Expect (-not (Test-Path 'HKLM:\SYSTEM\CurrentControlSet\Services\EventLog\Application\REA')) 'the event source is gone'
    Expect (-not (Member)) 'the account is no Event Log Reader any more'
    Expect (Test-Path -LiteralPath $mark) 'data stays'
    Expect (Test-Path -LiteralPath $config) 'configuration stays'
  }
  'enroll' {
    $token = 'rea1uuenqcui5xsk67xfytsldvt2x2kilejzpj3ppwaqtetjwiio7ctwyi52e256pokuwbepzihobndi4b3e3xcq'
    Installer /i @('REA_SERVER=https://127.0.0.1:1', "REA_TOKEN=$token") 1603
    Expect (-not (Present)) 'there is no service'
    Expect (-not (Test-Path -LiteralPath $program)) 'there is no program'
    Expect (-not (Select-String -LiteralPath "$Step.log" -SimpleMatch $token -Quiet)) 'the token is not in the log'
  }
  'purge' {
    Installer /i
    Expect (Running) 'the service runs'
    Installer /x @('REA_PURGE=1')
    Expect (-not (Present)) 'the service is gone'
    Expect (-not (Test-Path -LiteralPath $data)) 'data and configuration are gone'
  }
}
