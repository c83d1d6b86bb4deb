use super::*;
use proptest::prelude::*;
use serde_json::json;

const SHAPE: Shape = Shape {
    maps: &["Labels", "Containers"],
    optional: &["IPRange"],
};

fn network() -> Value {
    json!({
        "Name": "mynet",
        "Id": "abc",
        "Internal": false,
        "EnableIPv6": true,
        "Bridge": null,
        "MTU": 1500,
        "IPAM": {"Driver": "default", "Config": [
            {"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"},
            {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
        ]},
        "Labels": {"env": "lab", "tier": "db"},
        "Containers": {"aa": {"Name": "web"}, "bb": {"Name": "db"}},
    })
}

fn of(text: &str) -> Result<String, TemplateError> {
    Template::parse(text)?.render(&network(), &SHAPE)
}

#[test]
fn fields_and_functions() {
    for (template, expected) in [
        ("", ""),
        ("plain } text", "plain } text"),
        ("{{.Name}}", "mynet"),
        ("{{ .Name }}: {{.Internal}}/{{.MTU}}", "mynet: false/1500"),
        ("{{.Name}}\\t{{.Id}}\\n", "mynet\tabc\n"),
        ("{{.IPAM.Driver}}", "default"),
        (
            "{{.IPAM.Config}}",
            "[map[Gateway:10.0.0.1 Subnet:10.0.0.0/24] map[Gateway:fd00::1 Subnet:fd00::/64]]",
        ),
        ("{{json .Labels}}", r#"{"env":"lab","tier":"db"}"#),
        ("{{.Labels | json}}", r#"{"env":"lab","tier":"db"}"#),
        ("{{json .Bridge}}{{.Bridge}}", "null"),
        ("{{json .Name}}", "\"mynet\""),
        ("{{.Labels.env}}{{.Labels.nothing}}", "lab<no value>"),
        ("{{index .Labels \"tier\"}}", "db"),
        ("{{(index .IPAM.Config 1).Gateway}}", "fd00::1"),
        ("{{index .Containers `aa` \"Name\"}}", "web"),
        ("{{upper .Name}}{{.Name | upper | lower}}", "MYNETmynet"),
        ("{{len .Containers}}{{len .Name}}", "25"),
        ("{{join (split \"a,b\" \",\") \"-\"}}", "a-b"),
        ("{{print .Name \"x\"}}{{println 1}}", "mynet x1\n"),
        ("a  {{- /* nothing */ -}}  b", "ab"),
        ("a {{- .Name -}} b", "amynetb"),
        ("{{\"}}\"}}", "}}"),
        ("{{$.Name}}{{len .}}{{len $}}", "mynet99"),
    ] {
        assert_eq!(of(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn blocks() {
    for (template, expected) in [
        (
            "{{range .IPAM.Config}}{{.Subnet}} {{end}}",
            "10.0.0.0/24 fd00::/64 ",
        ),
        (
            "{{range $i, $c := .IPAM.Config}}{{$i}}={{$c.Gateway}};{{end}}",
            "0=10.0.0.1;1=fd00::1;",
        ),
        (
            "{{range $k, $v := .Containers}}{{$k}}:{{$v.Name}},{{$.Name}} {{end}}",
            "aa:web,mynet bb:db,mynet ",
        ),
        ("{{range .Bridge}}x{{else}}none{{end}}", "none"),
        ("{{range .IPAM.Config}}[{{.IPRange}}]{{end}}", "[][]"),
        (
            "{{if .Internal}}a{{else if .EnableIPv6}}b{{else}}c{{end}}",
            "b",
        ),
        ("{{if and .EnableIPv6 (not .Internal)}}x{{end}}", "x"),
        (
            "{{if eq .Name \"a\" \"mynet\"}}x{{end}}{{if ne .MTU 1500}}y{{end}}",
            "x",
        ),
        ("{{if or .Internal .Bridge}}x{{end}}", ""),
        ("{{with .IPAM}}{{.Driver}}{{end}}", "default"),
        ("{{with $x := .Name}}{{$x}}{{.}}{{end}}", "mynetmynet"),
        (
            "{{$n := .Name}}{{range .Containers}}{{$n}}{{end}}",
            "mynetmynet",
        ),
    ] {
        assert_eq!(of(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (template, message) in [
        ("{{.Name", "the '{{' at byte 0 is not closed by '}}'"),
        ("ab{{.Name}", "the '{{' at byte 2 is not closed by '}}'"),
        ("{{}}", "unexpected '{{}}' with nothing in it"),
        ("{{json}}", "json takes one value"),
        ("{{nothing .Name}}", "there is no function 'nothing'"),
        ("{{.Nme}}", "there is no field 'Nme'"),
        ("{{.IPAM.X}}", "there is no field 'X' in 'IPAM'"),
        ("{{.Name.X}}", "'Name' has no fields, so none is called 'X'"),
        ("{{$x}}", "there is no variable '$x'"),
        ("{{range .Labels}}", "'range' has no '{{end}}'"),
        ("{{end}}", "unexpected '{{end}}'"),
        (
            "{{if .Name}}{{else}}{{else}}{{end}}",
            "unexpected '{{else}}'",
        ),
        (
            "{{.Name .Id}}",
            "unexpected second value; functions take several",
        ),
        (
            "{{.Name | .Id}}",
            "unexpected value after '|', where a function is wanted",
        ),
        ("{{(.Name}}", "unexpected end; a '(' is open"),
        ("{{.Name)}}", "unexpected ')'"),
        (
            "{{.A..B}}",
            "unexpected second value; functions take several",
        ),
        (
            "{{index .IPAM.Config 7}}",
            "index found no element of that number",
        ),
        (
            "{{99999999999999999999}}",
            "unexpected '99999999999999999999'",
        ),
        ("{{%}}", "unexpected '%'"),
        ("{{if $a, $b := .Name}}{{end}}", "unexpected ','"),
    ] {
        assert_eq!(of(template).unwrap_err().to_string(), message, "{template}");
    }
    let deep = "(".repeat(1000);
    assert_eq!(of(&format!("{{{{{deep}}}}}")), Err(TemplateError::Depth));
    let deep = "{{if .Name}}".repeat(1000);
    assert_eq!(of(&deep), Err(TemplateError::Depth));
    let chain = "{{if .Bridge}}".to_owned() + &"{{else if .Bridge}}".repeat(1000) + "{{end}}";
    assert_eq!(of(&chain), Err(TemplateError::Depth));
}

#[test]
fn unknown_fields_are_known_before_any_value() {
    let known = ["ID", "Name", "Labels"];
    let check = |text: &str| Template::parse(text).unwrap().check(&known);
    for good in [
        "{{.ID}}{{json .}}",
        "{{range .Labels}}{{.X}}{{end}}",
        "{{.Label \"a\"}}",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in [
        "{{.Id}}",
        "{{json .Id}}",
        "{{$.Id}}",
        "{{if (not .Id)}}{{end}}",
    ] {
        let error = check(bad).unwrap_err();
        assert_eq!(error.to_string(), "there is no field 'Id'", "{bad}");
        assert_eq!(error.hint().unwrap(), "the fields are .ID, .Name, .Labels");
    }
}

#[test]
fn labels_of_rows() {
    let row = json!({"Labels": "a=1,b=2"});
    let template = Template::parse("{{.Label \"b\"}}{{.Label \"c\"}}").unwrap();
    assert_eq!(template.render(&row, &SHAPE).unwrap(), "2");
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*") {
        let _ = of(&text);
    }

    #[test]
    fn no_action_panics(words in proptest::collection::vec(
        prop_oneof![
            Just("{{"), Just("}}"), Just("{{-"), Just(" -}}"), Just("."), Just(".Name"), Just("$"),
            Just("$x"), Just(":="), Just(","), Just("|"), Just("("), Just(")"), Just("json"),
            Just("index"), Just("range"), Just("if"), Just("with"), Just("else"), Just("end"),
            Just("\""), Just("`"), Just("-1"), Just("é"), Just("/*"), Just("*/"), Just("\\"),
            Just(".Labels"), Just("len"), Just("join"), Just("and"), Just("or"), Just("eq"),
        ], 0..40,
    ), gap in prop_oneof![Just(""), Just(" ")]) {
        let _ = of(&words.join(gap));
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^{\\\\]*") {
        prop_assert_eq!(of(&text), Ok(text));
    }

    #[test]
    fn any_field_comes_out_as_it_went_in(value in ".*") {
        let template = Template::parse("<{{.X}}>").unwrap();
        let printed = template.render(&json!({"X": value}), &SHAPE).unwrap();
        prop_assert_eq!(printed, format!("<{value}>"));
    }
}
