# Completion of pgherdctl for bash: source this file, or put it where bash-completion looks for it.
# The program itself says what can come next, with names from the DCS; when that takes too long, nothing comes.

_pgherdctl() {
    local program=${1/#\~\//$HOME/} answer candidate
    [[ ${program##*/} == pgherdctl ]] || program=pgherdctl
    type -P -- "$program" >/dev/null || program=$1
    COMPREPLY=()
    answer=$(PGHERDCTL_COMPLETE=bash PGHERDCTL_COMPLETE_BREAKS="$COMP_WORDBREAKS" \
        "$program" -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null </dev/null)
    case $? in
        0)
            while IFS= read -r candidate; do
                [[ -n $candidate ]] && COMPREPLY+=("$candidate")
            done <<<"$answer"
            # A setting goes on behind its sign.
            if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
                compopt -o nospace 2>/dev/null
            fi
            ;;
        10)
            compopt -o default 2>/dev/null
            ;;
    esac
    return 0
}

if [[ ${BASH_VERSINFO[0]} -gt 4 || ${BASH_VERSINFO[0]} -eq 4 && ${BASH_VERSINFO[1]} -ge 4 ]]; then
    complete -o nosort -F _pgherdctl pgherdctl
else
    complete -F _pgherdctl pgherdctl
fi
