#compdef @NAME@
# Completion of @NAME@ for zsh: put this file into a directory of $fpath, or source it after compinit.
# The program itself says what can come next, with names from the DCS; when that takes too long, nothing comes.

_@NAME@() {
    local program=${words[1]/#\~\//$HOME/} answer code line
    local -a lines open closed
    [[ ${program:t} == pgherdctl ]] || program=pgherdctl
    (( $+commands[$program] )) || [[ -x $program ]] || program=${words[1]}
    answer=$(@SHELL@=zsh "$program" -- "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null </dev/null)
    code=$?
    if (( code == @FILES@ )); then
        [[ $PREFIX == --*=* ]] && compset -P '*='
        _files
        return
    fi
    (( code == 0 )) || return 1
    for line in ${(f)answer}; do
        # What stands behind the first TAB explains.
        line=${${line//:/\\:}/$'\t'/:}
        # A setting goes on behind its sign.
        if [[ ${line%%:*} == *= ]]; then open+=("$line"); else closed+=("$line"); fi
    done
    (( $#open + $#closed )) || return 1
    (( $#closed )) && _describe -V values closed
    (( $#open )) && _describe -V values open -S ''
    return 0
}

if [[ $funcstack[1] == _@NAME@ ]]; then
    _@NAME@ "$@"
else
    compdef _@NAME@ @NAME@
fi
