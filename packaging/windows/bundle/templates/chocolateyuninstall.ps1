$ErrorActionPreference = 'Stop'
# Data and configuration stay, as with the package itself.
foreach ($key in Get-UninstallRegistryKey -SoftwareName 'REA Endpoint Agent*') {
  Uninstall-ChocolateyPackage -PackageName $env:ChocolateyPackageName -FileType 'msi' `
    -SilentArgs "$($key.PSChildName) /qn /norestart" -ValidExitCodes @(0, 3010, 1605, 1614)
}
