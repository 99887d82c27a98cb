//! `dsn`: where to connect to.

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
        let error = CtlError::new("Can not find a suitable member").ending(Exit::NotFound);
        return Err(error.next("`list` shows the members and their roles"));
    };
    let (host, port) = found.address.ok_or_else(|| no_address(&found.name))?;
    context.ui.data(&format!("host={host} port={port}"))?;
    Ok(Exit::Done)
}

/// The error for a member that does not say where its PostgreSQL is.
pub(super) fn no_address(name: &str) -> CtlError {
    let error = CtlError::new(format!("member {name} publishes no address of its PostgreSQL"));
    error.ending(Exit::Unreachable).next("its agent has perhaps never been up; see `list` and its log")
}
