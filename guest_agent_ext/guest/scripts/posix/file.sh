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
# Checks, creates, commits and removes files.
#
# Arguments: directory (not used), the name of one of the functions below, and
# the arguments of that function.
#
# Prints a line for files.py: a word and its details. If something fails, the
# tools' error message is on stderr.
#
# A new file is written to a temporary one in the same directory, .ga-ID, and
# renamed when it is complete. The inode, which the rename does not change,
# shows at any later time whether the rename was made.

refuse() {
    [ $# = 0 ] || echo "$*" >&2
    echo refused
    exit
}

# Sets inode to the inode of the file $1; empty if there is none.
identify() {
    inode=$(ls -di "$1" 2>/dev/null) || inode=
    inode=${inode#"${inode%%[0-9]*}"}
    inode=${inode%% *}
}

# Tells whether the file $1 has the inode $2. An empty inode matches no file.
is_it() {
    identify "$1"
    [ -n "$2" ] && [ "$inode" = "$2" ]
}

# Some versions of sync take a file, others sync everything.
flush() {
    command -v sync >/dev/null || return 0
    sync "$1" 2>/dev/null || sync
}

# Tells whether the file $1 exists, and exits if it is not a regular one:
# opening a FIFO would block.
look_at() {
    [ -d "$1" ] && { echo unsuitable directory; exit; }
    [ -f "$1" ] && return
    [ -e "$1" ] && { echo unsuitable special; exit; }
    return 1
}

# Sets target to the path $1 with symbolic links resolved. The file need not
# exist.
resolve() {
    target=$1 links=0
    while [ -L "$target" ]; do
        links=$((links + 1))
        [ $links -le 40 ] || refuse "$1: too many levels of symbolic links"
        # A name may end in newlines, which $() removes.
        link=$(readlink "$target" && echo x) || refuse
        link=${link%?x}
        case $link in
            /*) target=$link ;;
            *) target=${target%/*}/$link ;;
        esac
    done
}

look() {
    look_at "$1" || { echo missing; exit; }
    true <"$1" || refuse
    echo file
}

# Gives the file $1 the owner $2, in the words of chown; removes it otherwise.
give() {
    [ -z "$2" ] || chown "$2" "$1" || { rm -f "$1"; refuse; }
}

# Arguments: path, id, mode of a new file, "yes" to append, and the owner of a
# new file or nothing.
create() {
    resolve "$1"
    if look_at "$target"; then
        command -v stat >/dev/null || refuse "stat is not there"
        is_there=yes
    fi
    parent=${target%/*}/
    set -C
    if [ "$4" = yes ]; then
        if [ -z "$is_there" ]; then
            true >"$target" || refuse
            give "$target" "$5"
            chmod "${3:-0644}" "$target" || refuse
        fi
        echo created -
        printf %s "$target"
        exit
    fi
    true >"$parent.ga-$2" || refuse
    identify "$parent.ga-$2"
    if [ -z "$inode" ]; then
        rm -f "$parent.ga-$2"
        refuse "ls cannot tell the inode of a file"
    fi
    # At once: what the guest has no name for is refused before it is sent.
    give "$parent.ga-$2" "$5"
    # Temporary files of transfers that could not remove them.
    strays= count=0
    for file in "$parent".ga-*; do
        id=${file##*/.ga-}
        case $id in
            "$2" | *[!0-9a-f-]*) ;;
            ????????-????-????-????-????????????)
                [ $((count += 1)) -le 100 ] && strays="$strays $id" ;;
        esac
    done
    echo "created $inode$strays"
    printf %s "$target"
}

# Arguments: target, temporary file (empty if the transfer appends), inode of
# the temporary file, size, SHA-256 or empty, mode or empty, owner or empty. May
# be repeated.
commit() {
    target=$1 file=${2:-$1} expected=$3 size=$4 sha256=$5 mode=$6 owner=$7
    if [ ! -e "$file" ]; then
        is_it "$target" "$expected" || refuse "$file: not there any more"
        echo committed
        exit
    fi
    verify
    if [ "$file" != "$target" ]; then
        furnish
        flush "$file"
        [ -d "$target" ] && refuse "$target: is a directory now"
        mv -f "$file" "$target" </dev/null || refuse
        [ -z "$restore" ] || restorecon "$target" >&2
        file=${target%/*}/
    fi
    flush "$file"
    echo committed
}

verify() {
    if [ -n "$sha256" ] && command -v sha256sum >/dev/null; then
        actual=$(sha256sum <"$file") || refuse
        [ "${actual%% *}" = "$sha256" ] ||
            refuse "$file: its SHA-256 is not that of what was sent"
        return
    fi
    actual=$(wc -c <"$file") || refuse
    # Another program may have appended to the file, too.
    [ $((actual)) = "$size" ] || [ "$file" = "$target" ] &&
        [ $((actual)) -ge "$size" ] ||
        refuse "$file: has $((actual)) bytes, not $size"
}

# Gives the file the owner, mode and label of the file that is replaced, as far
# as no others are asked for. Only differences are set: some file systems know
# no owners.
furnish() {
    restore=
    is_labelled=
    [ -e /sys/fs/selinux/enforce ] && command -v chcon restorecon >/dev/null &&
        is_labelled=yes
    if [ ! -e "$target" ]; then
        [ -z "$owner" ] || chown "$owner" "$file" || refuse
        chmod "${mode:-0644}" "$file" || refuse
        restore=$is_labelled
        return
    fi
    old=$(stat -c '%u:%g %a' "$target") || refuse
    new=$(stat -c '%u:%g %a' "$file") || refuse
    [ "${old% *}" = "${new% *}" ] || chown "${old% *}" "$file" || refuse
    [ -z "$owner" ] || chown "$owner" "$file" || refuse
    [ "${mode:-${old#* }}" = "${new#* }" ] ||
        chmod "${mode:-${old#* }}" "$file" || refuse
    [ -z "$is_labelled" ] || chcon --reference="$target" "$file" || refuse
}

# Arguments: target, temporary file, inode of the temporary file. Once the
# temporary file is gone, no commit can succeed.
discard() {
    rm -f "$2" || refuse
    if is_it "$1" "$3"; then echo committed; else echo discarded; fi
}

# Arguments: target, then ids.
clean() {
    parent=${1%/*}/
    shift
    for id; do
        rm -f "$parent.ga-$id"
    done
    echo cleaned
}

# Arguments: path, id. For callers that lost the answer of create.
forget() {
    resolve "$1"
    clean "$target" "$2"
}

shift
"$@"
