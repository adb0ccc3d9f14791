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
# Checks, creates, commits and removes files, as posix/file.sh does, with the
# same arguments and answers.
#
# The number of a file on its volume identifies the file after it was renamed
# or has replaced another.

$asked = @($order.args | ForEach-Object { Get-Text $_ })
$verb, $path = $asked[0], $asked[1]

function Send-File($says, $details = @(), $about = '', $problem = '') {
    $utf8 = [Text.Encoding]::UTF8
    Send-Answer @{
        says = $says; details = @($details)
        path = [Convert]::ToBase64String($utf8.GetBytes($about))
        error = [Convert]::ToBase64String($utf8.GetBytes($problem)) }
}

# Returns the number of a file; empty if the file is missing, or the file
# system has no numbers.
function Get-Number($path) {
    if (-not [IO.File]::Exists($path)) { return '' }
    $said = (& fsutil.exe file queryfileid $path) -join ' '
    if ($said -match '0x[0-9a-fA-F]+') { $Matches[0] } else { '' }
}

function Test-Number($path, $number) {
    $number -and (Get-Number $path) -eq $number
}

function Set-Access($path, $how) {
    $said = & icacls.exe $path $how /q
    if ($LASTEXITCODE) { throw "its permissions cannot be set: $said" }
}

# Creates a file that only LocalSystem and administrators may open. The owner
# is one of them.
function New-Temporary($path) {
    $file = [IO.File]::Open($path, 'CreateNew', 'Write', 'None')
    # Nobody can open the file before its permissions are set.
    try {
        Set-Access $path @('/inheritance:r', '/grant:r', '*S-1-5-18:F',
            '*S-1-5-32-544:F', '*S-1-3-4:F')
        $file.Dispose()
    } catch {
        $file.Dispose()
        [IO.File]::Delete($path)
        throw
    }
}

# Returns a hash in hexadecimal. FIPS mode refuses the managed class.
function Get-Sha256($path) {
    $provider = 'Security.Cryptography.SHA256CryptoServiceProvider'
    try { $sha256 = New-Object $provider }
    catch { $sha256 = [Security.Cryptography.SHA256]::Create() }
    $file = [IO.File]::Open($path, 'Open', 'Read', 'ReadWrite')
    try { [BitConverter]::ToString($sha256.ComputeHash($file)) -replace '-' }
    finally { $file.Dispose() }
}

# Tells whether a file exists, and refuses a path that is no regular file.
function Test-File($path) {
    if ([IO.Directory]::Exists($path)) { Send-File 'unsuitable' 'directory' }
    if ($path -match '^[\\/]{2}[.?][\\/]') { Send-File 'unsuitable' 'special' }
    [IO.File]::Exists($path)
}

function Resolve-Link($path) {
    for ($links = 0; $links -lt 40; $links++) {
        $item = Get-Item -LiteralPath $path -Force -ErrorAction Ignore
        if (-not $item -or $item.LinkType -ne 'SymbolicLink') { return $path }
        $path = [IO.Path]::Combine([IO.Path]::GetDirectoryName($path),
            @($item.Target)[0])
    }
    throw 'too many levels of symbolic links'
}

function Sync-File($path) {
    $file = [IO.File]::Open($path, 'Open', 'Write', 'ReadWrite')
    $file.Flush($true)
    $file.Dispose()
}

function Invoke-Look {
    if (-not (Test-File $path)) { Send-File 'missing' }
    [IO.File]::Open($path, 'Open', 'Read', 'ReadWrite').Dispose()
    Send-File 'file'
}

function Invoke-Create {
    $id, $mode, $append, $owner = $asked[2..5]
    if ($mode) { throw 'a mode has no meaning on Windows' }
    if ($owner) { throw 'an owner and a group cannot be set on Windows' }
    $target = Resolve-Link $path
    $found = Test-File $target
    if ($append -eq 'yes') {
        if (-not $found) {
            [IO.File]::Open($target, 'CreateNew', 'Write', 'Read').Dispose()
        }
        Send-File 'created' '-' $target
    }
    $parent = [IO.Path]::GetDirectoryName($target)
    $temporary = Join-Path $parent ".ga-$id"
    New-Temporary $temporary
    $number = Get-Number $temporary
    if (-not $number) {
        [IO.File]::Delete($temporary)
        throw 'its file system gives files no numbers'
    }
    $strays = @([IO.Directory]::GetFiles($parent, '.ga-*') |
        ForEach-Object { [IO.Path]::GetFileName($_).Substring(4) } |
        Where-Object { $_ -ne $id -and $_ -match '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' } |
        Select-Object -First 100)
    Send-File 'created' (@($number) + $strays) $target
}

function Invoke-Commit {
    $temporary, $number, $size, $sha256 = $asked[2..5]
    if (-not $temporary) {
        if ((Get-Item -LiteralPath $path -Force).Length -lt [long]$size) {
            throw "has fewer than $size bytes"
        }
        Sync-File $path
        Send-File 'committed'
    }
    if (-not [IO.File]::Exists($temporary)) {
        if (-not (Test-Number $path $number)) { throw 'not there any more' }
        Send-File 'committed'
    }
    if ((Get-Sha256 $temporary) -ne $sha256) {
        throw 'its SHA-256 is not that of what was sent'
    }
    Sync-File $temporary
    if ([IO.File]::Exists($path)) {
        # The new file gets the permissions and attributes of the old one.
        [IO.File]::Replace($temporary, $path, [NullString]::Value)
    } else {
        # The permissions that every new file in this directory gets.
        Set-Access $temporary '/reset'
        [IO.File]::Move($temporary, $path)
    }
    Send-File 'committed'
}

function Invoke-Discard {
    [IO.File]::Delete($asked[2])
    if (Test-Number $path $asked[3]) { Send-File 'committed' }
    Send-File 'discarded'
}

function Invoke-Clean {
    $parent = [IO.Path]::GetDirectoryName($path)
    foreach ($id in $asked | Select-Object -Skip 2) {
        [IO.File]::Delete((Join-Path $parent ".ga-$id"))
    }
    Send-File 'cleaned'
}

function Invoke-Forget {
    $parent = [IO.Path]::GetDirectoryName((Resolve-Link $path))
    [IO.File]::Delete((Join-Path $parent ".ga-$($asked[2])"))
    Send-File 'cleaned'
}

try {
    switch ($verb) {
        'look' { Invoke-Look }
        'create' { Invoke-Create }
        'commit' { Invoke-Commit }
        'discard' { Invoke-Discard }
        'clean' { Invoke-Clean }
        'forget' { Invoke-Forget }
    }
} catch {
    $why = $_.Exception.GetBaseException().Message
    Send-File 'refused' @() '' "$path`: $why"
}
