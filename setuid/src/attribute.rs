//! Netlink attributes: length, type, value, padded to four bytes (netlink(7)).

/// NLA_F_NESTED, linux/netlink.h.
const NESTED: u16 = 1 << 15;
/// NLA_TYPE_MASK: without the two flags.
const TYPE: u16 = (1 << 14) - 1;
const HEADER: usize = 4;

/// Append an attribute. Values of ours have at most a few kilobytes.
pub fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let start = begin(out, kind);
    out.extend_from_slice(value);
    finish(out, start);
}

/// Append an attribute made of attributes.
pub fn nest(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = begin(out, kind | NESTED);
    fill(out);
    finish(out, start);
}

/// Append text with its end.
pub fn put_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    let start = begin(out, kind);
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    finish(out, start);
}

fn begin(out: &mut Vec<u8>, kind: u16) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&kind.to_ne_bytes());
    start
}

fn finish(out: &mut Vec<u8>, start: usize) {
    let length = (out.len() - start) as u16;
    if let Some(place) = out.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The attributes in `bytes`; a malformed rest is dropped.
pub fn each(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE, value))
    })
}

/// A number of four bytes.
pub fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// Text without its end.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    let value = end.and_then(|end| value.get(..end)).unwrap_or(value);
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_and_cuts_yield_what_is_whole() {
        let mut out = Vec::new();
        put(&mut out, 1, b"abc");
        nest(&mut out, 2, |out| put_text(out, 3, "in"));
        put(&mut out, 4, &7u32.to_ne_bytes());
        let found: Vec<_> = each(&out).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], (1, &b"abc"[..]));
        let inner: Vec<_> = each(found[1].1)
            .map(|(kind, value)| (kind, text(value)))
            .collect();
        assert_eq!(inner, [(3, "in".to_owned())]);
        assert_eq!(word(found[2].1), Some(7));
        assert_eq!(word(b"abc"), None);
        for cut in 0..out.len() {
            assert!(each(&out[..cut]).count() < 3);
        }
        assert_eq!(
            each(&[0, 0, 0, 0]).count(),
            0,
            "no attribute is shorter than its header"
        );
    }
}
