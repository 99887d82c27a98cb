# Completion of patronictl for fish: put this file into ~/.config/fish/completions.
# The program itself says what can come next, with names from the DCS; when that takes too long, nothing comes.

function __complete_patronictl
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l program pgherdctl
    string match --quiet '*/pgherdctl' -- "$words[1]"; and set program (string replace --regex '^~/' "$HOME/" -- $words[1])
    command --query $program; or set program patronictl
    set -l lines (PGHERDCTL_COMPLETE=fish command $program -- (commandline --current-process --cut-at-cursor | string collect) 2>/dev/null </dev/null)
    switch $status
        case 0
            printf '%s\n' $lines
        case 10
            set -l word (commandline --current-token)
            set -l option (string match --regex -- '^--[^=]*=' $word)
            __fish_complete_path (string replace -- "$option" '' $word) | string replace --regex -- '^' "$option"
    end
end

complete --command patronictl --no-files --keep-order --arguments '(__complete_patronictl)'
