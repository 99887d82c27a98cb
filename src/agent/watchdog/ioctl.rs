//! What Linux wants to be told by `ioctl`, and the only place of this crate where the compiler must take our word.

#![allow(unsafe_code, reason = "the kernel's watchdog interface has no other way to set a timeout")]
#![allow(missing_docs, unreachable_pub, reason = "the macros make public functions")]

use std::io;
use std::os::fd::AsRawFd;

/// `struct watchdog_info` of `linux/watchdog.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Info {
    pub(super) options: u32,
    pub(super) firmware: u32,
    pub(super) identity: [u8; 32],
}

mod raw {
    use super::Info;

    nix::ioctl_read!(get_support, b'W', 0, Info);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, i32);
    nix::ioctl_read!(get_timeout, b'W', 7, i32);
}

pub(super) fn support(file: &impl AsRawFd) -> io::Result<Info> {
    let mut info = Info::default();
    // SAFETY: the descriptor is open while `file` is borrowed, and the kernel writes one `Info` of this very layout.
    unsafe { raw::get_support(file.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

pub(super) fn set_timeout(file: &impl AsRawFd, mut seconds: i32) -> io::Result<()> {
    // SAFETY: as above; the kernel reads and writes one `int`.
    unsafe { raw::set_timeout(file.as_raw_fd(), &raw mut seconds) }?;
    Ok(())
}

pub(super) fn timeout(file: &impl AsRawFd) -> io::Result<i32> {
    let mut seconds = 0;
    // SAFETY: as above; the kernel writes one `int`.
    unsafe { raw::get_timeout(file.as_raw_fd(), &raw mut seconds) }?;
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(size_of::<Info>(), 40);
        assert_eq!(nix::request_code_read!(b'W', 0, size_of::<Info>()), 0x8028_5700);
        assert_eq!(nix::request_code_readwrite!(b'W', 6, size_of::<i32>()), 0xc004_5706);
        assert_eq!(nix::request_code_read!(b'W', 7, size_of::<i32>()), 0x8004_5707);
    }

    #[test]
    fn a_file_takes_no_requests() {
        let file = tempfile::tempfile().unwrap();
        assert!(support(&file).is_err() && timeout(&file).is_err() && set_timeout(&file, 10).is_err());
    }
}
