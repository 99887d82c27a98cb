//! What a demo cluster is made of besides its data: ports, passwords, programs. Made once, kept in the directory.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DemoError;
use super::files;
use super::place::{NAMES, Place};
use super::programs::Programs;

/// Ports of one cluster lie in a block: the store, the servers from the second on, the REST interfaces from the
/// twelfth on. Blocks lie below the range the kernel takes client ports from, or a client could take the port of a
/// server that is down for a moment.
const FIRST_PORT: u16 = 7400;
const BLOCK: u16 = 20;
const BLOCKS: u16 = 100;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberPlan {
    /// Its name.
    pub name: String,
    /// Port of PostgreSQL.
    pub port: u16,
    /// Port of the REST interface.
    pub api_port: u16,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Where PostgreSQL's programs are.
    pub bin_dir: PathBuf,
    /// Port of the embedded store.
    pub store_port: u16,
    /// The members.
    pub members: Vec<MemberPlan>,
    /// Password of `postgres`.
    pub superuser_password: String,
    /// Password of `replicator`.
    pub replication_password: String,
    /// The cluster has been up once. What an earlier attempt left of another one is not worth resuming.
    #[serde(default)]
    pub has_run: bool,
}

/// A plan, and how it came about.
pub(super) struct Made {
    /// The plan.
    pub plan: Plan,
    /// It is that of an earlier run.
    pub is_resumed: bool,
    /// What the reader should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Reads the plan of the directory, or makes one. Configuration files are written when they are new, missing, or
    /// name ports that somebody else has taken; otherwise they stay as the reader may have changed them.
    pub(super) fn resume_or_make(place: &Place, programs: &Programs) -> Result<Made, DemoError> {
        let path = place.plan();
        let kept = match fs::read_to_string(&path) {
            Ok(text) => Some(Self::parse(&path, &text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(DemoError::new(format!("cannot read {}", path.display())).because(error)),
        };
        let mut notes = Vec::new();
        let (plan, is_resumed, is_new) = match kept {
            None => (Self::make(place.dir(), programs)?, false, true),
            Some(mut plan) => {
                plan.check_programs(place)?;
                if !plan.has_run {
                    place.clear_data()?;
                    notes.push("an earlier run ended before the cluster was up: its data is removed".to_owned());
                }
                let taken = plan.ports().find(|port| !is_free(*port));
                if let Some(port) = taken {
                    plan.move_to(free_block(place.dir())?);
                    notes.push(format!("port {port} is taken by another program: the cluster moves to other ports"));
                }
                let is_resumed = plan.has_run;
                (plan, is_resumed, taken.is_some())
            }
        };
        place.furnish()?;
        for (path, text, mode) in files::all(place, &plan) {
            if is_new || !path.exists() {
                place.write(&path, &text, mode)?;
            }
        }
        plan.save(place)?;
        Ok(Made { plan, is_resumed, notes })
    }

    /// Remembers that the cluster is worth keeping.
    pub(super) fn mark_as_run(&self, place: &Place) -> Result<(), DemoError> {
        Self { has_run: true, ..self.clone() }.save(place)
    }

    fn save(&self, place: &Place) -> Result<(), DemoError> {
        let path = place.plan();
        let failed = |error| DemoError::new(format!("cannot write {}", path.display())).because(error);
        let text = serde_json::to_string_pretty(self).map_err(|error: serde_json::Error| failed(error))?;
        place.write(&path, &(text + "\n"), 0o600)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, DemoError> {
        let broken = || DemoError::new(format!("{} is damaged; start anew with --fresh", path.display()));
        let plan: Self = serde_json::from_str(text).map_err(|error| broken().because(error))?;
        let names = plan.members.iter().map(|member| member.name.as_str());
        if names.eq(NAMES) { Ok(plan) } else { Err(broken()) }
    }

    fn make(dir: &Path, programs: &Programs) -> Result<Self, DemoError> {
        let mut plan = Self {
            bin_dir: programs.bin_dir.clone(),
            store_port: 0,
            members: NAMES.map(|name| MemberPlan { name: name.to_owned(), port: 0, api_port: 0 }).into(),
            superuser_password: password()?,
            replication_password: password()?,
            has_run: false,
        };
        plan.move_to(free_block(dir)?);
        Ok(plan)
    }

    /// Data directories belong to one major version; another one's programs would only fail later and obscurely.
    fn check_programs(&self, place: &Place) -> Result<(), DemoError> {
        if self.bin_dir.join("postgres").exists() {
            return Ok(());
        }
        Err(DemoError::new(format!(
            "the cluster in {} was made with the programs in {}, which are gone; install them again, or start anew with \
             --fresh",
            place.dir().display(),
            self.bin_dir.display()
        )))
    }

    fn move_to(&mut self, first: u16) {
        self.store_port = first;
        for (member, i) in self.members.iter_mut().zip(1..) {
            member.port = first + i;
            member.api_port = first + 10 + i;
        }
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        [self.store_port].into_iter().chain(self.members.iter().flat_map(|member| [member.port, member.api_port]))
    }
}

/// The first port of a block that is free. Where the search begins depends on the directory, so that two demos that
/// are started at once do not go for the same block.
fn free_block(dir: &Path) -> Result<u16, DemoError> {
    let is_free = |first: &u16| (0..=3).chain(11..=13).all(|i| is_free(first + i));
    let start = first_choice(dir);
    let found = (0..BLOCKS).map(|i| FIRST_PORT + (start + i) % BLOCKS * BLOCK).find(is_free);
    let end = FIRST_PORT + BLOCKS * BLOCK - 1;
    found.ok_or_else(|| DemoError::new(format!("no free loopback ports between {FIRST_PORT} and {end}")))
}

fn first_choice(dir: &Path) -> u16 {
    if dir.ends_with("pgherd-demo") || dir.ends_with("pgherd/demo") {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    u16::try_from(hasher.finish() % u64::from(BLOCKS)).unwrap_or_default()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// 96 random bits as hexadecimal digits, which need no quoting anywhere.
fn password() -> Result<String, DemoError> {
    let mut bytes = [0; 12];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| DemoError::new("cannot read /dev/urandom, to make passwords").because(error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(dir: &Path) -> Programs {
        fs::write(dir.join("postgres"), "").unwrap();
        Programs { bin_dir: dir.to_owned(), version: "15.0".to_owned() }
    }

    #[test]
    fn a_second_run_has_the_same_ports_and_passwords_and_keeps_changed_files() {
        let (dir, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::claim(dir.path()).unwrap();
        let first = Plan::resume_or_make(&place, &programs(bin.path())).unwrap();
        assert!(!first.is_resumed);
        first.plan.mark_as_run(&place).unwrap();
        fs::write(place.config("herd2"), "# mine\n").unwrap();
        fs::remove_file(place.ctl()).unwrap();
        let second = Plan::resume_or_make(&place, &programs(bin.path())).unwrap();
        assert!(second.is_resumed && second.notes.is_empty());
        assert_eq!(Plan { has_run: true, ..first.plan }, second.plan);
        assert_eq!(fs::read_to_string(place.config("herd2")).unwrap(), "# mine\n");
        assert!(place.ctl().exists());
    }

    #[test]
    fn what_never_ran_is_made_anew_with_the_same_settings() {
        let (dir, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::claim(dir.path()).unwrap();
        let first = Plan::resume_or_make(&place, &programs(bin.path())).unwrap();
        fs::create_dir(place.data("herd1")).unwrap();
        fs::write(place.config("herd1"), "# mine\n").unwrap();
        let second = Plan::resume_or_make(&place, &programs(bin.path())).unwrap();
        assert!(!second.is_resumed && second.notes.len() == 1);
        assert_eq!(first.plan, second.plan);
        assert!(!place.data("herd1").exists() && place.member("herd1").exists());
        assert_eq!(fs::read_to_string(place.config("herd1")).unwrap(), "# mine\n");
    }

    #[test]
    fn a_taken_port_moves_the_cluster() {
        let (dir, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::claim(dir.path()).unwrap();
        let first = Plan::resume_or_make(&place, &programs(bin.path())).unwrap().plan;
        first.mark_as_run(&place).unwrap();
        let _taken = TcpListener::bind(("127.0.0.1", first.members[1].port)).unwrap();
        let second = Plan::resume_or_make(&place, &programs(bin.path())).unwrap();
        assert_ne!(first.store_port, second.plan.store_port);
        assert_eq!(first.superuser_password, second.plan.superuser_password);
        assert!(second.notes[0].contains(&first.members[1].port.to_string()), "{:?}", second.notes);
        let text = fs::read_to_string(place.config("herd1")).unwrap();
        assert!(text.contains(&format!("127.0.0.1:{}", second.plan.members[0].port)), "{text}");
    }

    #[test]
    fn missing_programs_and_damage_are_named() {
        let (dir, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::claim(dir.path()).unwrap();
        Plan::resume_or_make(&place, &programs(bin.path())).unwrap();
        fs::remove_file(bin.path().join("postgres")).unwrap();
        let again = |programs: &Programs| Plan::resume_or_make(&place, programs).map(|_| ()).unwrap_err().to_string();
        let gone = Programs { bin_dir: "/nowhere".into(), version: "15.0".to_owned() };
        assert!(again(&gone).contains("--fresh"));
        fs::write(place.plan(), "{").unwrap();
        assert!(again(&gone).contains("damaged"));
    }

    #[test]
    fn passwords_differ() {
        let (a, b) = (password().unwrap(), password().unwrap());
        assert_eq!(a.len(), 24);
        assert_ne!(a, b);
    }
}
