//! A number from words, for names of kernel objects.

/// FNV-1a: the same for ever, unlike the standard library's. Not against anyone who wants collisions:
/// podman's ids are random numbers of its own.
pub fn digest(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
