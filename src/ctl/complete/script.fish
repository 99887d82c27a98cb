# Completion of @NAME@ for fish: put this file into ~/.config/fish/completions.
# The program itself says what can come next, with names from the DCS; when that takes too long, nothing comes.

function __complete_@NAME@
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l program pgherdctl
    string match --quiet '*/pgherdctl' -- "$words[1]"; and set program (string replace --regex '^~/' "$HOME/" -- $words[1])
    command --query $program; or set program @NAME@
    set -l lines (@SHELL@=fish command $program -- (commandline --current-process --cut-at-cursor | string collect) 2>/dev/null </dev/null)
    switch $status
        case 0
            printf '%s\n' $lines
        case @FILES@
            set -l word (commandline --current-token)
            set -l option (string match --regex -- '^--[^=]*=' $word)
            __fish_complete_path (string replace -- "$option" '' $word) | string replace --regex -- '^' "$option"
    end
end

complete --command @NAME@ --no-files --keep-order --arguments '(__complete_@NAME@)'
