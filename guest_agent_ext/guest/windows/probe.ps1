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
# Tells the guest's boot and uptime, and which commands have left files.
#
# The boot's name is in a volatile key of the registry, which a reboot removes:
# the time of the last boot, as Windows tells it, moves with the clock.

$machine = [Microsoft.Win32.Registry]::LocalMachine
$key = $machine.CreateSubKey(
    $bootKey, [Microsoft.Win32.RegistryKeyPermissionCheck]::ReadWriteSubTree,
    [Microsoft.Win32.RegistryOptions]::Volatile)
if (-not $key.GetValue('id')) { $key.SetValue('id', "$([Guid]::NewGuid())") }
$ids = @()
if ([IO.Directory]::Exists($directory)) {
    $ids = @([IO.Directory]::GetFiles($directory) |
        ForEach-Object { [IO.Path]::GetFileName($_) } |
        Where-Object { $_ -notlike '*.*' })
}
Send-Answer @{
    says = 'guest'; boot_id = $key.GetValue('id'); uptime = Get-Uptime
    ids = $ids }
