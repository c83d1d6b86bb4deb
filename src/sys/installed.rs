//! The program that an admin has installed: where daemon and doctor find it.

use mossnet_setuid::Helper;

/// Variable that names another one, for tests: which program to ask is the user's own choice, and gives
/// nobody any privilege. Empty: none.
pub const PROGRAM: &str = "MOSSNET_HELPER";

/// The installed `mossnet-helper`, if there is one.
pub fn helper() -> Option<Helper> {
    match std::env::var_os(PROGRAM) {
        Some(program) => (!program.is_empty()).then(|| Helper::at(program)),
        None => Helper::installed(),
    }
}
