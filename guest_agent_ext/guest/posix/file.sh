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
# What is done with files beside reading and writing them.
#
# Arguments: directory, which is not used here, one of the functions at the end
# of this file, and its arguments.
#
# Prints a line for files.py: a word, and what belongs to it. Where something
# fails, what the tools say of it stands on stderr.
#
# A file is written to a temporary one beside it, .ga-ID, and renamed when all
# of it is there. That the rename was made can be told at any time later by the
# inode, which the file brings along.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 077

refuse() {
    [ $# = 0 ] || echo "$*" >&2
    echo refused
    exit
}

# Sets inode to that of the file $1, or to nothing.
identify() {
    inode=$(ls -di "$1" 2>/dev/null) || inode=
    inode=${inode#"${inode%%[0-9]*}"}
    inode=${inode%% *}
}

# Some take a file to be synced, others sync everything.
flush() {
    command -v sync >/dev/null || return 0
    sync "$1" 2>/dev/null || sync
}

# A file that can be opened, and will not have who opens it wait: a FIFO would.
look_at() {
    [ -d "$1" ] && { echo unsuitable directory; exit; }
    [ -f "$1" ] && return
    [ -e "$1" ] && { echo unsuitable special; exit; }
    return 1
}

# Sets target to the file that $1 is or links to, there or not.
resolve() {
    target=$1 links=0
    while [ -L "$target" ]; do
        links=$((links + 1))
        [ $links -le 40 ] || refuse "$1: too many levels of symbolic links"
        # A name may end in newlines, which $() would drop.
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

# Arguments: path, id, mode for a new file, yes to append.
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
            true >"$target" && chmod "${3:-0644}" "$target" || refuse
        fi
        echo created -
        printf %s "$target"
        exit
    fi
    true >"$parent.ga-$2" || refuse
    identify "$parent.ga-$2"
    # What transfers have left that ended with their guest.
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

# Arguments: target, temporary (nothing where it was appended), inode of that,
# size, SHA-256 or nothing, mode or nothing. May be asked for twice.
commit() {
    target=$1 file=${2:-$1} expected=$3 size=$4 sha256=$5 mode=$6
    if [ ! -e "$file" ]; then
        identify "$target"
        [ "$inode" = "$expected" ] || refuse "$file: not there any more"
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
    # Others may append too.
    [ $((actual)) = "$size" ] || [ "$file" = "$target" ] &&
        [ $((actual)) -ge "$size" ] ||
        refuse "$file: has $((actual)) bytes, not $size"
}

# Gives the file owner, mode and label of the one that it replaces. What is as
# it should be is not set: some file systems know no owners.
furnish() {
    restore=
    is_labelled=
    [ -e /sys/fs/selinux/enforce ] && command -v chcon restorecon >/dev/null &&
        is_labelled=yes
    if [ ! -e "$target" ]; then
        chmod "${mode:-0644}" "$file" || refuse
        restore=$is_labelled
        return
    fi
    old=$(stat -c '%u:%g %a' "$target") || refuse
    new=$(stat -c '%u:%g %a' "$file") || refuse
    [ "${old% *}" = "${new% *}" ] || chown "${old% *}" "$file" || refuse
    [ "${mode:-${old#* }}" = "${new#* }" ] ||
        chmod "${mode:-${old#* }}" "$file" || refuse
    [ -z "$is_labelled" ] || chcon --reference="$target" "$file" || refuse
}

# Arguments: target, temporary, inode of that. When the temporary is gone, no
# commit can be made any more.
discard() {
    rm -f "$2" || refuse
    identify "$1"
    if [ "$inode" = "$3" ]; then echo committed; else echo discarded; fi
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

shift
"$@"
