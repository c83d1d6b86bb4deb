//! Framed flows: TCP connections whose frames the relay reads and writes itself, as long as they are short.
//!
//! `MOSSNET_FRAMED=0` has the kernel speak all of them.

/// Says whether there are any.
const VARIABLE: &str = "MOSSNET_FRAMED";

/// The variable holds something else than 0 or 1.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}='{0}' must be 0 (off) or 1")]
pub struct FramedError(String);

/// Whether the environment wants them, as it does unless told otherwise.
pub fn wanted() -> Result<bool, FramedError> {
    match std::env::var_os(VARIABLE) {
        Some(value) => parse(&value.to_string_lossy()),
        None => Ok(true),
    }
}

fn parse(value: &str) -> Result<bool, FramedError> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        wrong => Err(FramedError(wrong.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_or_off() {
        assert!(!parse("0").unwrap());
        assert!(parse("1").unwrap());
        for wrong in ["", "2", "off", "01"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("'{wrong}'")), "{error}");
        }
    }
}
