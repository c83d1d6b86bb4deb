//! The clock and the dice, read here and handed to whatever needs them.

pub(super) use crate::network::calendar::{days_from_civil, rfc3339};
use crate::network::model::Millis;
use mossnet_helper::SandboxId;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now.
pub(super) fn now() -> Millis {
    // Before 1970: the clock is not set; order is all that is lost.
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX)
}

/// Random bytes from the kernel.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// A new identity.
pub(super) fn new_id() -> io::Result<SandboxId> {
    random().map(SandboxId::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ() {
        assert_ne!(new_id().unwrap(), new_id().unwrap());
    }
}
