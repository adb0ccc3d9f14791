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

"""The scripts of the Windows launcher, as far as a text can be tested.

Nothing here runs PowerShell. The scripts are parsed, and what can be read from
them is compared with what must hold; expressions of theirs are evaluated by
Python's twins of PowerShell's.
"""

from collections.abc import Sequence
from importlib import resources
import re

import pytest
import tree_sitter
import tree_sitter_powershell

from guest_agent_ext.guest.launchers import scripted

DIRECTORY = resources.files('guest_agent_ext.guest') / 'scripts' / 'windows'
NAMES = sorted(
    path.name for path in DIRECTORY.iterdir() if path.name.endswith('.ps1')
)
PARSER = tree_sitter.Parser(
    tree_sitter.Language(tree_sitter_powershell.language())
)

#: What is there in .NET Framework or in PowerShell's modules alone, and what
#: has another meaning in one of the two.
NOT_EVERYWHERE = (
    r'GetAccessControl\(',
    r'CreateDirectory\([^()]*,',
    r'Get-FileHash',
    r'Get-WmiObject',
    r'Get-Acl',
    r'ArgumentList',
    r'\?\?',
    r'\?\.',
)


def text(name: str) -> str:
    return scripted.text(f'windows/{name}.ps1')


def function(script: str, name: str) -> str:
    """Return the text of a function."""
    found = re.search(
        rf'^function {name}\b.*?^}}',
        (DIRECTORY / f'{script}.ps1').read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert found, name
    return found[0]


def in_order(script: str, *parts: str) -> bool:
    """Tell whether a text has parts, each behind the one before."""
    return (
        re.search('.*?'.join(map(re.escape, parts)), script, re.DOTALL)
        is not None
    )


def is_whole(script: str) -> bool:
    return not PARSER.parse(script.encode()).root_node.has_error


@pytest.mark.parametrize('name', NAMES)
def test_script_can_be_parsed(name: str) -> None:
    # As it is sent, too.
    assert is_whole((DIRECTORY / name).read_text())
    assert is_whole(text(name.removesuffix('.ps1')))


@pytest.mark.parametrize(
    'broken', ['if ($a { $b }', 'function f( { }', '$a = @{ b = 1']
)
def test_parser_finds_what_is_broken(broken: str) -> None:
    assert not is_whole(broken)


@pytest.mark.parametrize('name', NAMES)
def test_script_is_for_all_powershells(name: str) -> None:
    script = text(name.removesuffix('.ps1'))
    for pattern in NOT_EVERYWHERE:
        assert not re.search(pattern, script), pattern


def test_release_removes_the_lock_last_and_everything_before() -> None:
    script = text('release')
    assert in_order(
        script,
        'GetFiles($directory, "$id.*")',
        'Delete($path)',
        'Delete((Join-Path $directory $id))',
    )
    # Whatever a launcher leaves has the id and a suffix.
    assert set(
        re.findall(
            r'"\$own([.\w$()]*)',
            ''.join(map(text, ('launch', 'signal', 'unhold', 'recover'))),
        )
    ) == {
        '.in.$($order.pieces).$number',
        '.result',
        '.pid.part',
        '.pid',
        '.unhold',
        '.killed',
    }


def test_pid_is_never_half_there() -> None:
    assert in_order(
        function('common', 'Save-Text'),
        '"$path.part"',
        'Move("$path.part", $path)',
    )
    launch = text('launch')
    # Room for it is kept before there is anything to find.
    assert in_order(
        launch,
        'WriteAllText("$own.pid.part"',
        '[Diagnostics.Process]::Start',
        'Save-Text "$own.pid"',
    )
    assert re.findall(r'WriteAllText\(\s*"\$own\.pid"', launch) == []


@pytest.mark.parametrize(
    ('words', 'is_process'),
    [
        ('7 133 100', True),
        ('0 0 0', False),
        ('', False),
        ('7 133', False),
        ('-7 133 100', False),
        ('x 133 100', False),
        ('7 y 100', False),
    ],
)
def test_signal_takes_only_what_names_a_process(
    words: str, is_process: bool
) -> None:
    checks = re.findall(
        r"\$words\[(\d)\] -match '(.*?)'", function('signal', 'Find-Process')
    )
    assert len(checks) == 2
    found = words.split()
    assert (
        len(found) >= 3
        and all(
            re.search(pattern.replace(r'\z', r'\Z'), found[int(number)])
            for number, pattern in checks
        )
    ) == is_process
    assert '$words.Count -ge 3' in function('signal', 'Find-Process')


def test_signal_spares_strangers() -> None:
    """Who lives is asked before anybody is ended."""
    assert in_order(
        text('signal'),
        '$launcher = Find-Process',
        '$command = Find-Process',
        'if (-not ($launcher.lives -or $command.lives))',
        'if ($command.lives) { Stop-One $command.id }',
        'foreach ($pair in Get-Pairs)',
    )


def test_signal_bounds_wmi() -> None:
    query = function('signal', 'Get-Pairs')
    assert 'WaitOne(8000)' in query and '-OperationTimeoutSec' in query
    assert in_order(query, 'WaitOne', 'isWmiHung = $true')


def test_lock_that_nobody_signs_is_died() -> None:
    recover = text('recover')
    assert in_order(
        recover,
        '$maker.Count -lt 3',
        'if (Test-Maker)',
        "says = 'running'",
        "says = 'died'",
    )
    # Exclusively: who writes it has it open.
    assert "'Open', 'Read', 'None'" in function('recover', 'Test-Maker')
    assert in_order(
        function('common', 'New-Lock'),
        'CreateNew',
        'Dispose()',
        'Delete($path)',
        '$false',
    )


def test_end_that_cannot_be_kept_is_answered() -> None:
    save = function('launch', 'Save-End')
    assert 'try { Save-Text' in save and 'catch { }' in save
    assert in_order(text('launch'), 'Save-End $ended', 'Write-Answer $ended')
    assert in_order(
        function('launch', 'Send-Failure'), 'Save-End $end', 'Send-Answer $end'
    )


def test_launcher_that_is_held_ends_itself() -> None:
    assert text('launch').endswith('if ($isHeld) { $self.Kill() }')
    assert in_order(
        text('launch'),
        'try { Protect-Handles }',
        '[Diagnostics.Process]::Start',
    )


def test_ended_process_that_is_open_does_not_live() -> None:
    assert '-not $process.HasExited -and' in function('common', 'Test-Process')


def test_no_mark_of_an_encoding_comes_into_stdin() -> None:
    assert in_order(
        text('launch'),
        '[Console]::InputEncoding = New-Object Text.UTF8Encoding $false',
        '[Diagnostics.Process]::Start',
    )


def test_file_without_a_number_is_not_taken_for_another() -> None:
    assert '$number -and (Get-Number $path) -eq $number' in function(
        'file', 'Test-Number'
    )
    script = text('file')
    assert script.count('Test-Number $path') == 2
    assert in_order(
        function('file', 'Invoke-Create'),
        'New-Temporary',
        'if (-not $number)',
        'throw',
    )


def test_temporary_file_is_nobody_elses() -> None:
    create = function('file', 'New-Temporary')
    assert in_order(
        create, "'CreateNew', 'Write', 'None'", 'Set-Access', 'Dispose()'
    )
    assert in_order(
        function('file', 'Invoke-Commit'),
        "Set-Access $temporary '/reset'",
        'Move($temporary, $path)',
    )


def python(pattern: str) -> str:
    return pattern.replace(r'\z', r'\Z')


def quoted(word: str) -> str:
    """Quote as Join-Arguments does, by its own expressions."""
    script = function('launch', 'Join-Arguments')
    (plain,) = re.findall(r"if \(\$_ -match '(.*)'\)", script)
    replaced = re.findall(r"-replace '(.*)', '(.*)'", script)
    assert len(replaced) == 2
    if re.search(python(plain), word):
        return word
    for pattern, by in replaced:
        word = re.sub(
            python(pattern), by.replace('\\', r'\\').replace('$1', r'\1'), word
        )
    return f'"{word}"'


def split(line: str) -> list[str]:
    """Split a command line by the rules of CommandLineToArgvW."""
    words: list[str] = []
    word, is_quoted, has_word = '', False, False
    for slashes, char in re.findall(r'(\\*)(.?)', line, re.DOTALL):
        if char == '"':
            word += '\\' * (len(slashes) // 2)
            if len(slashes) % 2:
                word += '"'
            else:
                is_quoted = not is_quoted
            has_word = True
            continue
        word += slashes
        has_word = has_word or bool(slashes)
        if char in (' ', '\t', '') and not is_quoted:
            if has_word:
                words.append(word)
            word, has_word = '', False
        else:
            word += char
            has_word = True
    return words


@pytest.mark.parametrize(
    ('word', 'expected'),
    [
        ('plain', 'plain'),
        ('', '""'),
        ('two words', '"two words"'),
        ('C:\\dir\\', 'C:\\dir\\'),
        ('C:\\a dir\\', '"C:\\a dir\\\\"'),
        ('say "hi"', '"say \\"hi\\""'),
        ('a\\"b', '"a\\\\\\"b"'),
        ('"', '"\\""'),
        ('\\\\" \\', '"\\\\\\\\\\" \\\\"'),
        ('line\n', '"line\n"'),
        ('x\\\n', '"x\\\n"'),
        ('tab\there', '"tab\there"'),
        ("%PATH% $x `y` 'z'", '"%PATH% $x `y` \'z\'"'),
    ],
)
def test_word_is_quoted_and_split_again(word: str, expected: str) -> None:
    assert quoted(word) == expected
    assert split(f'first {quoted(word)} {quoted(word)} last') == [
        'first',
        word,
        word,
        'last',
    ]


def joined(words: Sequence[str], special: str) -> str:
    """Join as Join-Words does."""
    assert [
        part.strip()
        for part in re.findall(
            r'if \((.*)\) \{ (.*) \}', function('launch', 'Join-Words')
        )[0]
    ] == ["$_ -eq ''", '\'""\'']
    return ' '.join(
        '""'
        if not word
        else f'"{word}"'
        if re.search(special, word) and '"' not in word
        else word
        for word in words
    )


def cmd(argv: Sequence[str]) -> str:
    """Return the arguments of cmd.exe as Join-Cmd does."""
    script = function('launch', 'Join-Cmd')
    (switch,) = re.findall(r"-match '(.*)'\)", script)
    (special,) = set(re.findall(r"Join-Words \$\w+ '(.*?)'", script))
    words = argv[1:]
    at = next(
        (
            at
            for at, word in enumerate(words)
            if re.search(python(switch), word, re.IGNORECASE)
        ),
        None,
    )
    if at is None:
        return joined(words, special)
    line = words[at + 1 :]
    body = line[0] if len(line) == 1 else joined(line, special)
    return ' '.join(['/d', *words[:at], '/s', words[at], f'"{body}"'])


@pytest.mark.parametrize(
    ('argv', 'line'),
    [
        # The five forms of guests.rst.
        (['cmd.exe', '/c', 'echo', 'Hello'], '/d /s /c "echo Hello"'),
        (
            ['cmd.exe', '/c', 'dir C:\\ & echo done'],
            '/d /s /c "dir C:\\ & echo done"',
        ),
        (
            ['cmd.exe', '/c', 'type', 'C:\\My Files\\a.txt', '>', 'C:\\b.txt'],
            '/d /s /c "type "C:\\My Files\\a.txt" > C:\\b.txt"',
        ),
        (['cmd.exe', '/c', 'echo', 'say "hi"'], '/d /s /c "echo say "hi""'),
        (
            ['cmd.exe', '/v:on', '/c', 'set x=1& echo !x!'],
            '/d /v:on /s /c "set x=1& echo !x!"',
        ),
        (['cmd', '/K', 'a', ''], '/d /s /K "a """'),
        (['cmd.exe'], ''),
    ],
)
def test_line_of_cmd(argv: Sequence[str], line: str) -> None:
    assert cmd(argv) == line


@pytest.mark.parametrize(
    ('words', 'line'),
    [
        (['C:\\a.bat', 'x'], 'C:\\a.bat x'),
        (
            ['C:\\My Files\\a.bat', 'a&b', 'c d', ''],
            '"C:\\My Files\\a.bat" "a&b" "c d" ""',
        ),
        (['a.cmd', '100%', '"x"'], 'a.cmd "100%" "x"'),
    ],
)
def test_words_of_a_batch_file_are_data(
    words: Sequence[str], line: str
) -> None:
    (special,) = re.findall(
        r"Join-Words .* '(.*?)'", function('launch', 'Join-Batch')
    )
    assert joined(words, special) == line


def test_program_is_what_the_tenant_means() -> None:
    find = function('launch', 'Find-Program')
    assert in_order(
        text('launch'),
        '$info.EnvironmentVariables[$name] =',
        '$info.WorkingDirectory = Get-Text $about.cwd',
        'Find-Program $argv[0]',
    )
    assert "EnvironmentVariables['PATH']" in find
    assert '$places = @($info.WorkingDirectory)' in find
