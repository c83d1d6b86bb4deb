//! What programs that are executed inherit.

/// Let no descriptor but the standard ones survive exec: whoever started us may have leaked some.
/// Kernels before 5.11 cannot, and keep them.
pub fn close_others_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: takes integers only, and closes nothing in this process.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}
