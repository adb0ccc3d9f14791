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
# Runs one command, at most once, and keeps the result until release.ps1.
#
# This process stays while the command runs: it bounds and counts the output,
# waits for the end and records the result. If the agent is gone by then,
# nothing is lost.
#
# Files of a command: ID is the lock; ID.pid has the command's PID, creation
# time and start (guest uptime); ID.unhold tells this process not to wait for
# children that still hold the streams; ID.killed has the state that a killed
# command ends in; ID.result is the result; ID.in.* are pieces of a large
# order.

$own = Join-Path $directory $order.id

function Send-Refusal($reason) {
    Send-Answer @{ says = 'refused'; reason = $reason }
}

# A request that was held back may arrive late, or after a reboot.
if ((Get-Boot) -ne $order.boot_id) { Send-Refusal 'boot' }
if ((Get-Uptime) -gt $order.ticket) { Send-Refusal 'ticket' }
$text = ''
for ($number = 1; $number -le $order.count; $number++) {
    $piece = "$own.in.$($order.pieces).$number"
    if (-not [IO.File]::Exists($piece)) { Send-Refusal 'boot' }
    $text += Get-Text ([IO.File]::ReadAllText($piece))
}
$about = if ($text) { ConvertFrom-Json $text } else { $order.about }
if (-not (New-Lock $own "$PID $(Get-Born $self) $(Get-Uptime)")) {
    if ([IO.File]::Exists($own)) { Send-Answer @{ says = 'taken' } }
    Send-Refusal $directory
}
foreach ($piece in [IO.Directory]::GetFiles($directory, "$($order.id).in.*")) {
    [IO.File]::Delete($piece)
}

function Save-End($end) {
    # The result is printed even if it cannot be kept.
    try { Save-Text "$own.result" (ConvertTo-Json $end -Compress) } catch { }
}

function Send-Failure($why) {
    $end = @{
        says = 'failed'; uptime = Get-Uptime
        error = [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($why))
    }
    Save-End $end
    Send-Answer $end
}

# This .NET takes no argument list, only a line, which programs split by the
# rules of CommandLineToArgvW: a backslash is special only before a quote.
function Join-Arguments($words) {
    @($words | ForEach-Object {
        if ($_ -match '\A[^\s"]+\z') { return $_ }
        $word = $_ -replace '(\\*)"', '$1$1\"'
        $word = $word -replace '(\\+)\z', '$1$1'
        "`"$word`""
    }) -join ' '
}

# cmd.exe has other rules: the line is the text between the first quote and the
# last, and a quote cannot be escaped. So the tenant has to quote a word that
# contains a quote or an operator.
function Join-Words($words, $special) {
    @($words | ForEach-Object {
        if ($_ -eq '') { '""' }
        elseif ($_ -match $special -and -not $_.Contains('"')) { "`"$_`"" }
        else { $_ }
    }) -join ' '
}

# Returns the arguments of cmd.exe. A single word behind /c or /k is a whole
# line.
function Join-Cmd($words) {
    for ($at = 0; $at -lt $words.Count; $at++) {
        if ($words[$at] -match '\A/[ckr]\z') { break }
    }
    if ($at -ge $words.Count) { return Join-Words $words '\s' }
    $switches = @('/d') + @($words | Select-Object -First $at) + @(
        '/s', $words[$at])
    $line = @($words | Select-Object -Skip ($at + 1))
    if ($line.Count -ne 1 -or [IO.File]::Exists($line[0])) {
        $line = @(Join-Words $line '\s')
    }
    "$($switches -join ' ') `"$line`""
}

# Returns the arguments of the cmd.exe that runs a batch file. The words are
# data: an operator in them has no effect.
function Join-Batch($path, $words) {
    $line = Join-Words (@($path) + $words) '[\s&|<>()^@!,;=%]'
    "/d /s /c `"$line`""
}

# Returns the path of the program that the tenant names: in the command's
# directory or on its PATH. Windows would search in the directory of
# PowerShell, and on the PATH of the agent.
function Find-Program($name) {
    $endings = "$($info.EnvironmentVariables['PATHEXT'])".Split(';')
    $endings = if ([IO.Path]::GetExtension($name)) { @('') + $endings }
               else { $endings + @('') }
    $places = if ($about.cwd) { @($info.WorkingDirectory) } else { @() }
    if ($name -match '[\\/:]') { $places = @($info.WorkingDirectory) }
    else { $places += "$($info.EnvironmentVariables['PATH'])".Split(';') }
    foreach ($place in $places) {
        foreach ($ending in $endings) {
            # A PATH may contain words that are no paths.
            try { $path = [IO.Path]::Combine($place.Trim('"'), "$name$ending") }
            catch { continue }
            if ($place -and [IO.File]::Exists($path)) { return $path }
        }
    }
    $name
}

# Keeps a child from inheriting the pipes of the agent: while a child held
# them, the agent would think that the launcher lives. The compiled library
# stays in the directory.
function Protect-Handles {
    $library = Join-Path $directory "handles.$($PSVersionTable.PSVersion).dll"
    if (-not [IO.File]::Exists($library)) {
        Add-Type -Namespace GuestAgent -Name Handles -OutputAssembly (
            "$library.$PID") -MemberDefinition '
[DllImport("kernel32.dll")]
public static extern IntPtr GetStdHandle(int number);
[DllImport("kernel32.dll")]
public static extern bool SetHandleInformation(IntPtr handle, int mask,
    int flags);'
        [IO.File]::Move("$library.$PID", $library)
    }
    Add-Type -Path $library
    foreach ($number in -10, -11, -12) {
        [void][GuestAgent.Handles]::SetHandleInformation(
            [GuestAgent.Handles]::GetStdHandle($number), 1, 0)
    }
}

function New-Keeper($stream) {
    $keeper = @{
        stream = $stream; buffer = New-Object byte[] 65536; read = $null
        kept = New-Object IO.MemoryStream; written = [long]0 }
    Read-More $keeper
    $keeper
}

function Read-More($keeper) {
    $keeper.read = $keeper.stream.ReadAsync($keeper.buffer, 0, 65536)
}

# Stores the bytes that were read and starts the next read, except at the end
# of the stream.
function Save-Chunk($keeper) {
    $count = 0
    if ($keeper.read.Status -eq 'RanToCompletion') {
        $count = $keeper.read.Result
    }
    $keeper.read = $null
    if (-not $count) { return }
    $keeper.written += $count
    $kept = $keeper.kept
    if ($order.keep_end -eq 'head') {
        $count = [Math]::Min($count, $order.keep - $kept.Length)
    }
    $kept.Write($keeper.buffer, 0, $count)
    if ($kept.Length -gt 2 * $order.keep) {
        $bytes = $kept.ToArray()
        $kept.SetLength(0)
        $kept.Write($bytes, $bytes.Length - $order.keep, $order.keep)
    }
    Read-More $keeper
}

function Get-Kept($keeper) {
    $bytes = $keeper.kept.ToArray()
    $count = [Math]::Min($bytes.Length, $order.keep)
    [Convert]::ToBase64String($bytes, $bytes.Length - $count, $count)
}

$info = New-Object Diagnostics.ProcessStartInfo
$info.WorkingDirectory = "$env:SystemDrive\"
$info.UseShellExecute = $false
$info.CreateNoWindow = $true
$info.RedirectStandardInput = $true
$info.RedirectStandardOutput = $true
$info.RedirectStandardError = $true
foreach ($variable in $about.env) {
    $name = Get-Text $variable[0]
    $info.EnvironmentVariables[$name] = Get-Text $variable[1]
}
if ($about.cwd) { $info.WorkingDirectory = Get-Text $about.cwd }
if (-not [IO.Directory]::Exists($info.WorkingDirectory)) {
    Send-Failure "there is no directory $($info.WorkingDirectory)"
}
$argv = @($about.argv | ForEach-Object { Get-Text $_ })
$words = @($argv | Select-Object -Skip 1)
$info.FileName = Find-Program $argv[0]
if ([IO.Path]::GetExtension($info.FileName) -in '.bat', '.cmd') {
    $info.Arguments = Join-Batch $info.FileName $words
    $info.FileName = [IO.Path]::Combine([Environment]::SystemDirectory,
        'cmd.exe')
} elseif ([IO.Path]::GetFileName($info.FileName) -in 'cmd', 'cmd.exe') {
    $info.Arguments = Join-Cmd $words
} else { $info.Arguments = Join-Arguments $words }

# Reserves room for the PID: a command that cannot be found must not run.
try { [IO.File]::WriteAllText("$own.pid.part", ' ' * 64) }
catch { Send-Failure ($_.Exception.GetBaseException().Message) }
# If a policy forbids compilation, the agent's pipes stay open in the child.
try { Protect-Handles } catch { }
# .NET Framework begins the child's stdin with the byte order mark of this
# encoding. Without a console the encoding cannot be set, and has no mark.
try {
    if ([Console]::InputEncoding.GetPreamble().Length) {
        [Console]::InputEncoding = New-Object Text.UTF8Encoding $false
    }
} catch { }
try { $process = [Diagnostics.Process]::Start($info) }
catch { Send-Failure ($_.Exception.GetBaseException().Message) }
$start = Get-Uptime
# Without the file the command is found as a child of this process, and is
# killed, because recover.ps1 reports no PID.
try { Save-Text "$own.pid" "$($process.Id) $(Get-Born $process) $start" }
catch { }

$out = New-Keeper $process.StandardOutput.BaseStream
$err = New-Keeper $process.StandardError.BaseStream
$bytes = [Convert]::FromBase64String($about.stdin)
$fed = $process.StandardInput.BaseStream.WriteAsync($bytes, 0, $bytes.Length)
$isHeld = $false
while ($reading = @($out, $err | Where-Object { $_.read })) {
    $tasks = @($reading | ForEach-Object { $_.read })
    if ($fed) { $tasks += $fed }
    [void][Threading.Tasks.Task]::WaitAny($tasks, 200)
    if ($fed -and $fed.IsCompleted) {
        # A command need not read its stdin.
        try { $process.StandardInput.Close() } catch { }
        $fed = $null
    }
    foreach ($keeper in $reading) {
        if ($keeper.read.IsCompleted) { Save-Chunk $keeper }
    }
    $isHeld = $process.HasExited -and [IO.File]::Exists("$own.unhold")
    if ($isHeld) { break }
}
$process.WaitForExit()
$ended = @{
    says = 'ended'; pid = $process.Id; start = $start
    exitcode = $process.ExitCode; out = Get-Kept $out; err = Get-Kept $err
    out_bytes = $out.written; err_bytes = $err.written }
if ([IO.File]::Exists("$own.killed")) {
    $ended.killed = [IO.File]::ReadAllText("$own.killed")
}
Save-End $ended
Write-Answer $ended
# A read that still waits would keep this process alive.
if ($isHeld) { $self.Kill() }
