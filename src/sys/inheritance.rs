//! Which descriptors a program that we start inherits. Source: close_range(2).

use std::io;

/// Marks every descriptor of this process above stderr close-on-exec.
///
/// Errors: kernels before 5.11 lack the flag; those older than 5.9 the call.
pub fn keep_standard_streams_only() -> io::Result<()> {
    // SAFETY: the call takes three integers and touches no memory; with this flag no descriptor is
    // closed, so that no owner's descriptor becomes invalid.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if answer == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_child_does_not_inherit_what_is_marked() {
        let (mut reader, writer) = io::pipe().unwrap();
        // dup(2) clears the flag.
        let leaky = nix::unistd::dup(&writer).unwrap();
        drop(writer);
        keep_standard_streams_only().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        drop::<OwnedFd>(leaky);
        // The end comes at once, since only this process had the writer.
        let mut left = Vec::new();
        reader.read_to_end(&mut left).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
