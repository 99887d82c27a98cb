# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pgherd_global_optspecs
    string join \n validate-config generate-sample-config generate-config dsn= i/ignore-listen-port p/print h/help V/version
end

function __fish_pgherd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pgherd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pgherd_using_subcommand
    set -l cmd (__fish_pgherd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pgherd -n "__fish_pgherd_needs_command" -l dsn -d 'Which server --generate-config asks, as a superuser; the PG* variables without it' -r
complete -c pgherd -n "__fish_pgherd_needs_command" -l validate-config -d 'Check the configuration and exit: 0 if it can be used, 1 with a line per problem if not'
complete -c pgherd -n "__fish_pgherd_needs_command" -l generate-sample-config -d 'Write a sample configuration for this host and exit'
complete -c pgherd -n "__fish_pgherd_needs_command" -l generate-config -d 'Write a configuration made from a running PostgreSQL server and exit'
complete -c pgherd -n "__fish_pgherd_needs_command" -s i -l ignore-listen-port -d 'With --validate-config, ports to listen on may be in use'
complete -c pgherd -n "__fish_pgherd_needs_command" -s p -l print -d 'With --validate-config, print the configuration with the variables merged in'
complete -c pgherd -n "__fish_pgherd_needs_command" -s h -l help -d 'Print help'
complete -c pgherd -n "__fish_pgherd_needs_command" -s V -l version -d 'Print version'
complete -c pgherd -n "__fish_pgherd_needs_command" -a "dcs" -d 'Serve the embedded store: one process that speaks etcd\'s v3 API'
complete -c pgherd -n "__fish_pgherd_needs_command" -a "demo" -d 'Start the embedded store and a three-member cluster on this machine'
complete -c pgherd -n "__fish_pgherd_needs_command" -a "guard" -d 'Stop PostgreSQL when the agent does not renew its lease in time; the agent starts this by itself'
complete -c pgherd -n "__fish_pgherd_needs_command" -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pgherd -n "__fish_pgherd_using_subcommand dcs" -l listen -d 'Address to listen on; port 0 takes a free one and logs it' -r
complete -c pgherd -n "__fish_pgherd_using_subcommand dcs" -l data-dir -d 'Directory of the store, created if missing' -r -F
complete -c pgherd -n "__fish_pgherd_using_subcommand dcs" -s h -l help -d 'Print help'
complete -c pgherd -n "__fish_pgherd_using_subcommand demo" -l dir -d 'Directory for the store, the members and their logs' -r -F
complete -c pgherd -n "__fish_pgherd_using_subcommand demo" -l user -d 'User to run PostgreSQL as when started as root' -r
complete -c pgherd -n "__fish_pgherd_using_subcommand demo" -l bin-dir -d 'Directory of PostgreSQL\'s programs; found on PATH or in the system\'s versioned directories without it' -r -F
complete -c pgherd -n "__fish_pgherd_using_subcommand demo" -l fresh -d 'Remove the cluster of an earlier run and start anew'
complete -c pgherd -n "__fish_pgherd_using_subcommand demo" -l script -d 'Run a self-checking tour and end; exits non-zero if a step fails'
complete -c pgherd -n "__fish_pgherd_using_subcommand demo" -s h -l help -d 'Print help'
complete -c pgherd -n "__fish_pgherd_using_subcommand guard" -l data-dir -d 'The server\'s data directory' -r -F
complete -c pgherd -n "__fish_pgherd_using_subcommand guard" -l config -d 'The agent\'s configuration' -r -F
complete -c pgherd -n "__fish_pgherd_using_subcommand guard" -l release -d 'Give the leader key back and end: agent and server are dead'
complete -c pgherd -n "__fish_pgherd_using_subcommand guard" -s h -l help -d 'Print help'
complete -c pgherd -n "__fish_pgherd_using_subcommand help; and not __fish_seen_subcommand_from dcs demo guard help" -f -a "dcs" -d 'Serve the embedded store: one process that speaks etcd\'s v3 API'
complete -c pgherd -n "__fish_pgherd_using_subcommand help; and not __fish_seen_subcommand_from dcs demo guard help" -f -a "demo" -d 'Start the embedded store and a three-member cluster on this machine'
complete -c pgherd -n "__fish_pgherd_using_subcommand help; and not __fish_seen_subcommand_from dcs demo guard help" -f -a "guard" -d 'Stop PostgreSQL when the agent does not renew its lease in time; the agent starts this by itself'
complete -c pgherd -n "__fish_pgherd_using_subcommand help; and not __fish_seen_subcommand_from dcs demo guard help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
