//! The device: the kernel's, or a FIFO in its place whose reader is a test.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::ioctl;

/// Where the device is unless another one is configured; it is not named in the log then.
const USUAL: &str = "/dev/watchdog";

/// What a closed device is called.
const UNNAMED: &str = "Linux watchdog device";

/// The timeout can be set.
const CAN_SET_TIMEOUT: u32 = 0x80;

/// Writing `V` before closing disarms it.
const CAN_BE_DISARMED: u32 = 0x100;

/// Timeouts that the kernel takes, in seconds.
const TIMEOUTS: std::ops::RangeInclusive<i64> = 1..=65_534;

/// What a test's FIFO starts with, in seconds.
const TEST_TIMEOUT: i64 = 60;

/// An open device, which counts down from the moment it was opened.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    path: String,
    kind: Kind,
    options: u32,
    identity: String,
    firmware: u32,
}

#[derive(Debug)]
enum Kind {
    Linux,
    Fifo { timeout: i64 },
}

/// What a device is called before it is open.
pub(super) fn describe(path: &str) -> String {
    format!("{UNNAMED}{}", place(path))
}

fn place(path: &str) -> String {
    if path == USUAL { String::new() } else { format!(" at {path}") }
}

/// Whether it could be opened, without opening it: that would start it.
pub(super) fn is_usable(path: &str) -> bool {
    Path::new(path).exists() && nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok()
}

impl Device {
    /// Opens it. No child inherits it: a copy in a script or in the server would hide that we closed it.
    pub(super) fn open(path: &str, is_test: bool) -> io::Result<Self> {
        // A FIFO without a reader must not hold anybody up. The standard library always sets close-on-exec.
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        if !is_test && !file.metadata()?.file_type().is_char_device() {
            return Err(io::Error::other("it is not a character device"));
        }
        let mut device = Self {
            file,
            path: path.to_owned(),
            kind: if is_test { Kind::Fifo { timeout: TEST_TIMEOUT } } else { Kind::Linux },
            options: CAN_SET_TIMEOUT | CAN_BE_DISARMED,
            identity: "Watchdog test reader".to_owned(),
            firmware: 0,
        };
        if !is_test {
            let info = ioctl::support(&device.file).inspect_err(|_| {
                // It counts down already. If this fails too, it is no watchdog.
                let _ = (&device.file).write_all(b"V");
            })?;
            device.options = info.options;
            device.firmware = info.firmware;
            let end = info.identity.iter().position(|byte| *byte == 0).unwrap_or(info.identity.len());
            device.identity = String::from_utf8_lossy(&info.identity[..end]).into_owned();
        }
        Ok(device)
    }

    pub(super) fn describe(&self) -> String {
        let firmware = if self.firmware == 0 { String::new() } else { format!(" (firmware {})", self.firmware) };
        format!("{}{firmware}{}", self.identity, place(&self.path))
    }

    pub(super) fn can_be_disarmed(&self) -> bool {
        self.options & CAN_BE_DISARMED != 0
    }

    pub(super) fn can_set_timeout(&self) -> bool {
        self.options & CAN_SET_TIMEOUT != 0
    }

    pub(super) fn set_timeout(&mut self, seconds: i64) -> io::Result<()> {
        match &mut self.kind {
            Kind::Fifo { timeout } => {
                self.file.write_all(format!("Ctimeout={seconds}\n").as_bytes())?;
                *timeout = seconds;
                Ok(())
            }
            Kind::Linux => match i32::try_from(seconds) {
                Ok(number) if TIMEOUTS.contains(&seconds) => ioctl::set_timeout(&self.file, number),
                _ => Err(io::Error::other(format!(
                    "Invalid timeout {seconds}. Supported values are between {} and {}",
                    TIMEOUTS.start(),
                    TIMEOUTS.end()
                ))),
            },
        }
    }

    pub(super) fn timeout(&self) -> io::Result<i64> {
        match self.kind {
            Kind::Fifo { timeout } => Ok(timeout),
            Kind::Linux => ioctl::timeout(&self.file).map(i64::from),
        }
    }

    pub(super) fn keep_alive(&mut self) -> io::Result<()> {
        self.file.write_all(b"1")
    }

    /// Closes it so that it does not fire, if it lets us.
    pub(super) fn disarm(mut self) -> io::Result<()> {
        self.file.write_all(b"V")
    }
}
