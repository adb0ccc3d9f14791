#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.
#
# Prints the guest's boot, the uptime, and the ids of commands that have files.
#
# The boot's name is in a volatile key of the registry, which a reboot removes.
# The time of the last boot would not do: it changes with the clock.

function New-Boot {
    $machine = [Microsoft.Win32.Registry]::LocalMachine
    $key = $machine.CreateSubKey(
        $bootKey, [Microsoft.Win32.RegistryKeyPermissionCheck]::ReadWriteSubTree,
        [Microsoft.Win32.RegistryOptions]::Volatile)
    if (-not $key.GetValue('id')) {
        $key.SetValue('id', "$([Guid]::NewGuid())")
    }
    [void][IO.Directory]::CreateDirectory($directory)
    # The file was written without room in the file system, or was changed.
    $name = Join-Path $directory 'name.id'
    if (-not (Get-Boot)) { [IO.File]::Delete($name) }
    [void](New-Lock $name ([Guid]::NewGuid().ToString('N').Substring(20)))
    $boot = Get-Boot
    if (-not $boot) { throw 'the file name.id cannot be written' }
    $boot
}

try { $boot = New-Boot }
catch {
    $why = "$directory`: $($_.Exception.GetBaseException().Message)"
    Send-Answer @{
        says = 'unusable'; error = [Convert]::ToBase64String(
            [Text.Encoding]::UTF8.GetBytes($why)) }
}
$ids = @([IO.Directory]::GetFiles($directory) |
    ForEach-Object { [IO.Path]::GetFileName($_) } |
    Where-Object { $_ -notlike '*.*' -or $_ -like '*.in.*' } |
    ForEach-Object { $_.Split('.')[0] })
Send-Answer @{
    says = 'guest'; boot_id = $boot; uptime = Get-Uptime; ids = $ids }
