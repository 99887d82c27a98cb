# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pgherdctl_global_optspecs
    string join \n c/config-file= d/dcs-url= k/insecure h/help version context= timeout= color=
end

function __fish_pgherdctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pgherdctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pgherdctl_using_subcommand
    set -l cmd (__fish_pgherdctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -s c -l config-file -d 'Configuration file, or a directory of *.yml files [env: PATRONICTL_CONFIG_FILE]' -r
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -s d -l dcs-url -l dcs -d 'Where the DCS is: [SCHEME://]HOST[:PORT][/NAMESPACE] [env: DCS_URL]' -r
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -s k -l insecure -d 'Do not verify the certificate of the REST API'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -l version -d 'Print version'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "demote-cluster" -d 'Let the cluster follow another one, from a host or an archive'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "dsn" -d 'Say where to connect to, for the leader or another member'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "edit-config" -d 'Edit the cluster\'s dynamic configuration'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "failover" -d 'Make a named member the leader, with or without one before'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "flush" -d 'Take back scheduled restarts or a scheduled switchover'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "history" -d 'Show when the cluster changed its timeline and its leader'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "list" -d 'Show the members of a cluster'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "pause" -d 'Maintenance mode: the members leave PostgreSQL alone'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "promote-cluster" -d 'Let a cluster that follows another one stand on its own'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "query" -d 'Run SQL on a member'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "reinit" -d 'Throw a replica\'s data away and clone it anew'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "reload" -d 'Let members read their configuration file again'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "remove" -d 'Forget a cluster: remove all its keys from the DCS'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "restart" -d 'Restart PostgreSQL of some members, now or later'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "resume" -d 'End maintenance mode'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "show-config" -d 'Show the cluster\'s dynamic configuration'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "switchover" -d 'Hand the leadership over to another member, now or later'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "topology" -d 'Show the members of a cluster as a tree'
complete -c pgherdctl -n "__fish_pgherdctl_needs_command" -f -a "version" -d 'Show the version of this program, or of a cluster\'s members'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -l host -d 'Address of the remote node' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -l port -d 'Port of the remote node' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -l restore-command -d 'Command to restore WAL records from the remote primary' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -l primary-slot-name -d 'Name of the slot on the remote node to use for replication' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand demote-cluster" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand dsn" -s r -l role -d 'Give a dsn of any member with this role' -r -f -a "leader\t'The holder of the leader key'
primary\t'The holder of the leader key, unless it leads a standby cluster'
standby-leader\t'The holder of the leader key, unless it is a primary'
replica\t'Everybody but the holder of the leader key'
standby\t'The same as `replica`'
any\t'Everybody'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand dsn" -s m -l member -d 'Generate a dsn for this member' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand dsn" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand dsn" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand dsn" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand dsn" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand dsn" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand dsn" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -s s -l set -d 'Set a value: KEY.PATH=VALUE, VALUE in YAML, empty or null removes it. May be given several times' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -s p -l pg -d 'Set a PostgreSQL parameter, short for -s postgresql.parameters.NAME=VALUE. May be given several times' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -l apply -d 'Merge a YAML file into the configuration; - is the standard input' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -l replace -d 'Replace the configuration by a YAML file; - is the standard input' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -s q -l quiet -d 'Do not show the changes'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -l dry-run -d 'Only show what would change'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand edit-config" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -l candidate -d 'The name of the candidate' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand failover" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -s r -l role -d 'Flush only members with this role' -r -f -a "leader\t'The holder of the leader key'
primary\t'The holder of the leader key, unless it leads a standby cluster'
standby-leader\t'The holder of the leader key, unless it is a primary'
replica\t'Everybody but the holder of the leader key'
standby\t'The same as `replica`'
any\t'Everybody'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand flush" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand history" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand history" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand history" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand history" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand history" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand history" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -s w -l watch -d 'Show again every so many seconds' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -l member-url -d 'Ask this member\'s REST API when the DCS does not answer; may be given several times' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -s e -l extended -d 'Show some extra information'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -s t -l timestamp -d 'Print a timestamp first'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -s W -d 'Show again every 2 seconds'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand list" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand pause" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand pause" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand pause" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand pause" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand pause" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand pause" -l wait -d 'Wait until every member knows it'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand pause" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand promote-cluster" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand promote-cluster" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand promote-cluster" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand promote-cluster" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand promote-cluster" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand promote-cluster" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand promote-cluster" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -l format -d 'Output format (pretty, tsv, json, yaml)' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s f -l file -d 'Execute the SQL commands from this file' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s U -l username -d 'Database user' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s w -l watch -d 'Show again every so many seconds' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s r -l role -d 'The role of the member to ask' -r -f -a "leader\t'The holder of the leader key'
primary\t'The holder of the leader key, unless it leads a standby cluster'
standby-leader\t'The holder of the leader key, unless it is a primary'
replica\t'Everybody but the holder of the leader key'
standby\t'The same as `replica`'
any\t'Everybody'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s m -l member -d 'The member to ask' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -l delimiter -d 'Between the columns of tsv, instead of a tab' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s c -l command -d 'The SQL commands to execute' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s d -l dbname -d 'Database' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -l password -d 'Ask for the password'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s W -d 'Show again every 2 seconds'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand query" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -l from-leader -d 'Get basebackup from leader'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -l wait -d 'Wait until reinitialization completes'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reinit" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -s r -l role -d 'Reload only members with this role' -r -f -a "leader\t'The holder of the leader key'
primary\t'The holder of the leader key, unless it leads a standby cluster'
standby-leader\t'The holder of the leader key, unless it is a primary'
replica\t'Everybody but the holder of the leader key'
standby\t'The same as `replica`'
any\t'Everybody'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand reload" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand remove" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand remove" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand remove" -l confirm -d 'The cluster\'s name once more: answers the questions' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand remove" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand remove" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand remove" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand remove" -l force -d 'With --confirm: even if the cluster has a leader'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand remove" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -s r -l role -d 'Restart only members with this role' -r -f -a "leader\t'The holder of the leader key'
primary\t'The holder of the leader key, unless it leads a standby cluster'
standby-leader\t'The holder of the leader key, unless it is a primary'
replica\t'Everybody but the holder of the leader key'
standby\t'The same as `replica`'
any\t'Everybody'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l scheduled -d 'Timestamp of a scheduled restart in unambiguous format (e.g. ISO 8601)' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l pg-version -d 'Restart if the PostgreSQL version is less than provided (e.g. 9.5.2)' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l timeout -d 'Return error and fail over if necessary when restarting takes longer than this' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l any -d 'Restart a single member only'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l pending -d 'Restart if pending'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand restart" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand resume" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand resume" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand resume" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand resume" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand resume" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand resume" -l wait -d 'Wait until every member knows it'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand resume" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand show-config" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand show-config" -s f -l format -d 'Output format' -r -f -a "yaml\t'YAML, as `edit-config` takes it'
json\t'JSON, with the cluster\'s name around it'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand show-config" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand show-config" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand show-config" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand show-config" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -l leader -l primary -d 'The name of the current leader' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -l candidate -d 'The name of the candidate' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -l scheduled -d 'Timestamp of a scheduled switchover in unambiguous format (e.g. ISO 8601)' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -s y -l yes -d 'Answer all questions with yes or their defaults; checks still stop the command'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand switchover" -l force -d 'Ask nothing, and override safety checks'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -s w -l watch -d 'Show again every so many seconds' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -l member-url -d 'Ask this member\'s REST API when the DCS does not answer; may be given several times' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -s e -l extended -d 'Show some extra information'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -s W -d 'Show again every 2 seconds'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand topology" -s h -l help -d 'Print help'
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand version" -l group -d 'Citus group' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand version" -s f -l format -d 'Output format' -r -f -a "pretty\t'A table for people'
tsv\t'Tab-separated lines with a header'
json\t'JSON'
yaml\t'YAML'
yml\t'The same'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand version" -l context -d 'Context of the configuration file [env: PGHERDCTL_CONTEXT]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand version" -l timeout -d 'Longest wait for one answer of the DCS or a member [default: 5]' -r
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand version" -l color -d 'Colour: auto, always or never [default: auto]' -r -f -a "auto\t'On a terminal, unless the environment is against it (NO_COLOR)'
always\t'Always'
never\t'Never'"
complete -c pgherdctl -n "__fish_pgherdctl_using_subcommand version" -s h -l help -d 'Print help'
