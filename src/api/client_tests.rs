use super::*;

#[test]
fn names_cannot_become_other_paths() {
    assert_eq!(encoded("web-1.x_y~"), "web-1.x_y~");
    assert_eq!(encoded("a/b?c d%"), "a%2Fb%3Fc%20d%25");
    assert_eq!(encoded("é"), "%C3%A9");
    assert_eq!(encoded(""), "%20");
}

#[test]
fn answers_that_are_no_error_body_still_say_something() {
    let body = refusal(StatusCode::BAD_GATEWAY, b"<html>");
    assert_eq!(body.message, "the daemon answered 502 Bad Gateway");
}
