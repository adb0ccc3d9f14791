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
# What every script begins with. For Windows PowerShell 5.1.
#
# The order comes as JSON on stdin. What a tenant sent is base64 in it, because
# ConvertFrom-Json takes some strings for dates.

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
# PowerShell may take a redirected stdin for $input, or leave it alone.
$order = ConvertFrom-Json ((@($input) -join '') + [Console]::In.ReadToEnd())
$directory = Join-Path $env:ProgramData 'guest-agent'
$bootKey = 'SOFTWARE\guest-agent-boot'

function Send-Answer($answer) {
    [Console]::Out.Write((ConvertTo-Json $answer -Compress))
    exit
}

function Get-Text($encoded) {
    [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($encoded))
}

# Centiseconds since the boot.
function Get-Uptime {
    $clock = [Diagnostics.Stopwatch]
    [long][Math]::Floor($clock::GetTimestamp() * 100.0 / $clock::Frequency)
}

function Get-Born($process) { $process.StartTime.ToFileTimeUtc() }

# A pid may be another process's by now.
function Test-Process($id, $born) {
    # It may end while it is looked at.
    try { (Get-Born (Get-Process -Id $id)) -eq [long]$born }
    catch { $false }
}

# Any user may create a directory in ProgramData: ours is only trusted if its
# owner is SYSTEM or the Administrators.
function Assert-Directory {
    $security = New-Object Security.AccessControl.DirectorySecurity
    $security.SetSecurityDescriptorSddlForm(
        'D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)')
    [void][IO.Directory]::CreateDirectory($directory, $security)
    $found = Get-Item -LiteralPath $directory -Force
    $owner = $found.GetAccessControl().GetOwner(
        [Security.Principal.SecurityIdentifier]).Value
    if ($owner -notin 'S-1-5-18', 'S-1-5-32-544' -or
        ($found.Attributes -band [IO.FileAttributes]::ReparsePoint)) {
        Send-Answer @{ says = 'refused'; reason = $directory }
    }
}

# The lock: only one script creates the file.
function New-Lock($path, $text) {
    try { $file = [IO.File]::Open($path, 'CreateNew', 'Write', 'Read') }
    catch { return $false }
    $bytes = [Text.Encoding]::ASCII.GetBytes($text)
    $file.Write($bytes, 0, $bytes.Length)
    $file.Dispose()
    $true
}
