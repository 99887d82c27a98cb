//! `dsn`: where to connect to.

use crate::ctl::documents::Dsn;
use crate::ctl::render::{Format, ours};
use crate::ctl::targets::{self, RoleFilter};
use crate::ctl::{Context, CtlError, Exit};

/// Arguments of `dsn`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DsnArgs {
    /// Cluster; the configured scope by default
    #[arg(value_name = "CLUSTER_NAME")]
    pub cluster: Option<String>,
    /// Give a dsn of any member with this role
    #[arg(short = 'r', long, value_enum)]
    pub role: Option<RoleFilter>,
    /// Generate a dsn for this member
    #[arg(short = 'm', long, value_name = "NAME")]
    pub member: Option<String>,
    /// Citus group
    #[arg(long, allow_negative_numbers = true)]
    pub group: Option<i64>,
}

/// Runs it.
pub async fn run(context: &Context<'_>, args: &DsnArgs) -> Result<Exit, CtlError> {
    let name = context.cluster_name(args.cluster.as_deref())?;
    let view = context.load(name, context.groups(args.group)).await?;
    if !context.personality().is_patronictl() {
        context.check_known(name, &view)?;
    }
    let Some(found) = targets::any_member(&view, args.role, args.member.as_deref())? else {
        return Err(targets::no_suitable(&view, args.member.as_deref()));
    };
    let (host, port) = found.address.ok_or_else(|| no_address(&found.name))?;
    let dsn = format!("host={host} port={port}");
    let text = match context.own.format {
        None | Some(Format::Pretty) => dsn,
        Some(Format::Name) => found.name.to_string(),
        Some(Format::Tsv) => {
            let role = found.role.word();
            let head = "cluster\tmember\trole\thost\tport\tdsn";
            format!("{head}\n{name}\t{}\t{role}\t{host}\t{port}\t{dsn}", found.name)
        }
        Some(format) => {
            let (cluster, member, role) = (name.to_owned(), found.name.to_string(), found.role);
            ours::document(&Dsn { cluster, member, role, host, port, dsn }, format)
        }
    };
    context.ui.data(&text)?;
    Ok(Exit::Done)
}

/// The error for a member that does not say where its PostgreSQL is.
pub(super) fn no_address(name: &str) -> CtlError {
    let error = CtlError::new(format!("member {name} publishes no address of its PostgreSQL"));
    error.ending(Exit::Unreachable).next("its agent has perhaps never been up; see `list` and its log")
}
