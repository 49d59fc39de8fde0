# shellcheck shell=bash
# Helpers for pipelines of banger's tools; to be sourced by bash.

# leftmost STATUS...: the leftmost real failure of a pipeline, from "${PIPESTATUS[@]}". 66 is an empty stdin: that tool
# only says that the one before it failed. A pipeline whose last tools were not reached ends with the first's status.
leftmost() {
    local status
    for status in "$@"; do
        if [ "$status" -ne 0 ] && [ "$status" -ne 66 ]; then
            return "$status"
        fi
    done
    for status in "$@"; do
        [ "$status" -eq 0 ] || return "$status"
    done
}

# stage NAME COMMAND...: runs the command and prints how long it took.
stage() {
    local name=$1 begun status=0
    shift
    begun=$(date +%s%N)
    "$@" || status=$?
    printf '%8.2f s  %s\n' "$(($(date +%s%N) - begun))e-9" "$name" >&2
    return "$status"
}

# help_or_go_on "$@": prints the script's head, which says what it does and takes, where the first word asks for that.
help_or_go_on() {
    case ${1-} in
    -h | --help)
        sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;/^shellcheck /d;p}' "$0"
        exit 0
        ;;
    esac
}
