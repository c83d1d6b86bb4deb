//! `inspect` of sandboxes and networks, and `network inspect`.

use super::args::InspectArgs;
use super::error::CliError;
use super::listing::Format;
use super::network_args::NetworkInspectArgs;
use super::template::Shape;
use super::{connect, table};
use crate::api::client::Client;
use crate::api::network_types::NetworkInfo;
use crate::api::paths::Paths;
use crate::api::types::SandboxInfo;
use serde::Serialize;

/// What our answers are like.
const SHAPE: Shape = Shape {
    maps: &["AuxiliaryAddresses", "Containers", "Labels", "Options"],
    optional: &["AuxiliaryAddresses", "IPRange"],
};

/// `inspect`: a sandbox of that name, else a network.
pub(super) async fn anything(paths: Paths, args: InspectArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let mut found = Found::default();
    for name in &args.names {
        found.add(one(&client, name).await);
    }
    found.print(args.format.as_ref())
}

/// `network inspect`.
pub(super) async fn networks(paths: Paths, args: NetworkInspectArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let mut found = Found::default();
    for name in &args.names.names {
        let network = client.network(name).await;
        let network = network.map(|network| Inspected::Network(Box::new(network)));
        found.add(network.map_err(CliError::from));
    }
    found.print(args.format.as_ref())
}

/// A sandbox before a network, but a whole name before the beginning of an id.
pub(super) async fn one(client: &Client, name: &str) -> Result<Inspected, CliError> {
    let sandbox = client.inspect(name).await;
    let found = |sandbox: SandboxInfo| Inspected::Sandbox(Box::new(sandbox));
    match sandbox {
        Ok(sandbox) if [&sandbox.name, sandbox.id.as_str()].contains(&name) => {
            return Ok(found(sandbox));
        }
        Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
        Ok(_) | Err(_) => {}
    }
    let network = client.network(name).await;
    match (sandbox, network) {
        (_, Ok(network)) if network.name == name => Ok(Inspected::Network(Box::new(network))),
        (Ok(sandbox), _) => Ok(found(sandbox)),
        (Err(error), _) if error.is_conflict() => Err(error.into()),
        (Err(_), Ok(network)) => Ok(Inspected::Network(Box::new(network))),
        (Err(_), Err(error)) if error.is_not_found() => Err(CliError::Unknown(name.to_owned())),
        (Err(_), Err(error)) => Err(error.into()),
    }
}

/// Either, with its own keys in their own order.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Inspected {
    Sandbox(Box<SandboxInfo>),
    Network(Box<NetworkInfo>),
}

/// What was found; what was not has been said.
#[derive(Default)]
struct Found {
    values: Vec<Inspected>,
    failed: bool,
}

impl Found {
    fn add(&mut self, found: Result<Inspected, CliError>) {
        match found {
            Ok(value) => self.values.push(value),
            Err(error) => {
                error.print();
                self.failed = true;
            }
        }
    }

    /// The array, empty too, as Docker prints it; or each by the template.
    fn print(self, format: Option<&Format>) -> Result<u8, CliError> {
        match format {
            None | Some(Format::Table | Format::TableTemplate(_)) => table::json(&self.values)?,
            Some(Format::Json) => table::line(&serde_json::to_string(&self.values)?)?,
            Some(Format::Template(template)) => {
                for value in &self.values {
                    let value = serde_json::to_value(value)?;
                    let text = template.render(&value, &SHAPE);
                    table::line(&text.map_err(CliError::Template)?)?;
                }
            }
        }
        Ok(u8::from(self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::graph::tests::example;
    use crate::cli::template::Template;

    fn of(template: &str) -> String {
        let value = serde_json::to_value(&example().0[1]).unwrap();
        let template = Template::parse(template).unwrap();
        let printed = template.render(&value, &SHAPE);
        printed.unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_network_has_dockers_shape() {
        let expected = include_str!("network_golden.json");
        let shown = serde_json::to_string_pretty(&[&example().0[1]]).unwrap();
        assert_eq!(shown + "\n", expected);
    }

    #[test]
    fn dockers_templates_work_on_it() {
        for (template, expected) in [
            (
                "{{range .IPAM.Config}}{{.Subnet}} {{end}}",
                "192.168.0.0/16 fd00:5::/64 ",
            ),
            ("{{(index .IPAM.Config 0).Gateway}}", "192.168.0.1"),
            ("{{json .Labels}}", r#"{"env":"lab"}"#),
            (
                "{{range .Containers}}{{.Name}}={{.IPv4Address}} {{end}}",
                "db=192.168.0.3/16 web=192.168.0.2/16 ",
            ),
            ("{{.Labels.none}}", "<no value>"),
            ("{{range .IPAM.Config}}{{.IPRange}}{{end}}", ""),
            ("{{.Lables}}", "there is no field 'Lables'"),
        ] {
            assert_eq!(of(template), expected, "{template}");
        }
    }
}
