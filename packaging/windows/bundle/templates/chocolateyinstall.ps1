$ErrorActionPreference = 'Stop'
$parameters = Get-PackageParameters
$properties = @(foreach ($name in 'Endpoint', 'Server', 'Token') {
    if ($parameters[$name]) { "REA_$($name.ToUpper())=`"$($parameters[$name])`"" }
  })
$package = @{
  packageName    = $env:ChocolateyPackageName
  fileType       = 'msi'
  softwareName   = 'REA Endpoint Agent*'
  silentArgs     = (@('/qn', '/norestart') + $properties) -join ' '
  validExitCodes = @(0, 3010)
  url64bit       = '{{.URL}}/{{.MSI.amd64.File}}'
  checksum64     = '{{.MSI.amd64.SHA256}}'
  checksumType64 = 'sha256'
}
if ($env:PROCESSOR_ARCHITECTURE -eq 'ARM64') {
  $package.url64bit = '{{.URL}}/{{.MSI.arm64.File}}'
  $package.checksum64 = '{{.MSI.arm64.SHA256}}'
}
Install-ChocolateyPackage @package
