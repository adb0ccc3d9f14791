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
# Functions of all other scripts; windows.py sends this file before each of
# them. For Windows PowerShell 5.1, and PowerShell 6 and 7. .NET is preferred
# to the cmdlets of a module, because modules are slow to load.
#
# The tenant's data is base64 in the order, because ConvertFrom-Json takes some
# strings for dates.
#
# The directory is in the profile of LocalSystem, where nobody else can create
# one in advance.

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$directory = Join-Path ([Environment]::GetFolderPath(
    'LocalApplicationData', 'Create')) 'guest-agent'
$bootKey = 'SOFTWARE\guest-agent-boot'
$self = [Diagnostics.Process]::GetCurrentProcess()

function Write-Answer($answer) {
    [Console]::Out.Write((ConvertTo-Json $answer -Compress))
    [Console]::Out.Flush()
}

function Send-Answer($answer) {
    Write-Answer $answer
    exit
}

function Get-Text($encoded) {
    [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($encoded))
}

# Returns centiseconds since the boot.
function Get-Uptime {
    $clock = [Diagnostics.Stopwatch]
    [long][Math]::Floor($clock::GetTimestamp() * 100.0 / $clock::Frequency)
}

# Returns the name of the boot, with the last part replaced by the name of the
# directory, so that another directory is another boot. Nothing without either.
function Get-Boot {
    $key = [Microsoft.Win32.Registry]::LocalMachine.OpenSubKey($bootKey)
    if (-not $key) { return }
    try { $name = [IO.File]::ReadAllText((Join-Path $directory 'name.id')) }
    catch { return }
    if ($name -notmatch '\A[0-9a-f]{12}\z') { return }
    "$($key.GetValue('id') -replace '-[^-]*\z')-$name"
}

function Get-Born($process) { $process.StartTime.ToFileTimeUtc() }

# Tells whether a process lives. The creation time is compared because another
# process may have the PID by now; one that has ended is found while a handle
# is open.
function Test-Process($id, $born) {
    try {
        $process = [Diagnostics.Process]::GetProcessById([int]$id)
        -not $process.HasExited -and (Get-Born $process) -eq [long]$born
    } catch { $false }
}

function Stop-Pid($id) {
    # The process may end by itself meanwhile.
    try { [Diagnostics.Process]::GetProcessById($id).Kill() } catch { }
}

# Returns the words of a file; none if the file is missing or still empty.
function Get-Words($path) {
    if (-not [IO.File]::Exists($path)) { return , @() }
    # The writer may have the file open.
    $file = [IO.File]::Open($path, 'Open', 'Read', 'ReadWrite, Delete')
    $reader = New-Object IO.StreamReader $file
    try { , @($reader.ReadToEnd().Split(' ') | Where-Object { $_ }) }
    finally { $reader.Dispose() }
}

# Writes a file so that nobody reads half of the text.
function Save-Text($path, $text) {
    [IO.File]::WriteAllText("$path.part", $text)
    [IO.File]::Delete($path)
    [IO.File]::Move("$path.part", $path)
}

# Creates a file; only one script can. A file that cannot be written is
# removed.
function New-Lock($path, $text) {
    try { $file = [IO.File]::Open($path, 'CreateNew', 'Write', 'Read') }
    catch { return $false }
    try {
        $bytes = [Text.Encoding]::ASCII.GetBytes($text)
        $file.Write($bytes, 0, $bytes.Length)
        $file.Dispose()
        $true
    } catch {
        try { $file.Dispose() } catch { }
        [IO.File]::Delete($path)
        $false
    }
}
