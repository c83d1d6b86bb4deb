//! Results: what `ADD` answers, in the shape of each version, and what comes back as `prevResult`.

use super::config::Dns;
use super::refusal::{Code, Refusal};
use super::version::Version;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) mac: Option<String>,
    pub(super) mtu: Option<u32>,
    /// The container's namespace; `None`: the router's.
    pub(super) sandbox: Option<String>,
}

/// An address of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) address: IpNet,
    pub(super) gateway: Option<IpAddr>,
}

/// What one attachment is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attached {
    /// The container's is the last.
    pub(super) interfaces: Vec<Interface>,
    /// All of the last interface.
    pub(super) addresses: Vec<Address>,
    /// Gateways of the default routes through it.
    pub(super) default_routes: Vec<IpAddr>,
    pub(super) dns: Dns,
}

impl Attached {
    /// The answer: `before`, what earlier plugins of the chain have said, and this.
    pub(super) fn result(
        &self,
        version: Version,
        before: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let mut result = match before {
            None => Map::new(),
            Some(Value::Object(before)) => before.clone(),
            Some(_) => return Err(malformed("it is not an object")),
        };
        result.insert("cniVersion".to_owned(), version.text().into());
        let interfaces = list(&mut result, "interfaces")?;
        let ours = interfaces.len() + self.interfaces.len().saturating_sub(1);
        interfaces.extend(self.interfaces.iter().map(|i| interface(i, version)));
        let addresses = self.addresses.iter().map(|a| address(a, ours, version));
        list(&mut result, "ips")?.extend(addresses);
        let routes = self.default_routes.iter().map(|gateway| {
            let all = if gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            json!({"dst": all, "gw": gateway})
        });
        list(&mut result, "routes")?.extend(routes);
        let dns = result.entry("dns").or_insert_with(|| json!({}));
        add_dns(dns, &self.dns);
        Ok(Value::Object(result))
    }
}

fn malformed(why: &str) -> Refusal {
    Refusal::new(Code::Decode, format!("prevResult is malformed: {why}"))
}

fn list<'a>(result: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>, Refusal> {
    let value = result.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    let list = value.as_array_mut();
    list.ok_or_else(|| malformed(&format!("'{name}' is not a list")))
}

fn interface(interface: &Interface, version: Version) -> Value {
    let mut shown = json!({"name": interface.name});
    let mtu = interface.mtu.filter(|_| version.shows_mtu());
    for (key, value) in [
        ("mac", interface.mac.clone().map(Value::from)),
        ("mtu", mtu.map(Value::from)),
        ("sandbox", interface.sandbox.clone().map(Value::from)),
    ] {
        if let Some(value) = value {
            shown[key] = value;
        }
    }
    shown
}

fn address(address: &Address, interface: usize, version: Version) -> Value {
    let mut shown = json!({"address": address.address, "interface": interface});
    if version.names_families() {
        let family = if address.address.addr().is_ipv4() {
            "4"
        } else {
            "6"
        };
        shown["version"] = family.into();
    }
    if let Some(gateway) = address.gateway {
        shown["gateway"] = json!(gateway);
    }
    shown
}

/// What earlier plugins have said counts.
fn add_dns(shown: &mut Value, dns: &Dns) {
    let Some(shown) = shown.as_object_mut() else {
        return;
    };
    let lists = [
        ("nameservers", &dns.nameservers),
        ("search", &dns.search),
        ("options", &dns.options),
    ];
    let said = |value: Option<&Value>| {
        value.is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()))
    };
    for (key, list) in lists {
        if !list.is_empty() && !said(shown.get(key)) {
            shown.insert(key.to_owned(), json!(list));
        }
    }
    if let Some(domain) = &dns.domain {
        shown.entry("domain").or_insert_with(|| json!(domain));
    }
}

/// What `CHECK` and `DEL` get back of a result.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(super) struct Previous {
    #[serde(default)]
    pub(super) interfaces: Vec<PreviousInterface>,
    #[serde(default)]
    ips: Vec<PreviousAddress>,
    #[serde(default)]
    routes: Vec<PreviousRoute>,
}

/// An interface of it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(super) struct PreviousInterface {
    name: String,
    #[serde(default)]
    pub(super) mac: Option<String>,
    #[serde(default)]
    sandbox: Option<String>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct PreviousAddress {
    address: IpNet,
    #[serde(default)]
    interface: Option<usize>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct PreviousRoute {
    dst: IpNet,
    #[serde(default)]
    gw: Option<IpAddr>,
}

impl Previous {
    /// From `prevResult`.
    pub(super) fn parse(value: &Value) -> Result<Self, Refusal> {
        Self::deserialize(value).map_err(|error| malformed(&error.to_string()))
    }

    /// Which interface of a container has this name.
    pub(super) fn interface(&self, name: &str) -> Option<(usize, &PreviousInterface)> {
        let in_container =
            |i: &PreviousInterface| i.sandbox.as_ref().is_some_and(|s| !s.is_empty());
        let mut all = self.interfaces.iter().enumerate();
        all.find(|(_, interface)| interface.name == name && in_container(interface))
    }

    /// It has the router's side of an endpoint.
    pub(super) fn is_ours(&self) -> bool {
        self.interfaces.iter().any(|i| i.name.starts_with("ve-"))
    }

    /// Addresses of one.
    pub(super) fn addresses_of(&self, interface: usize) -> impl Iterator<Item = IpNet> {
        let of = move |ip: &&PreviousAddress| ip.interface == Some(interface);
        self.ips.iter().filter(of).map(|ip| ip.address)
    }

    /// A default route that goes by this gateway.
    pub(super) fn has_default_route(&self, gateway: IpAddr) -> bool {
        let is = |route: &PreviousRoute| route.dst.prefix_len() == 0 && route.gw == Some(gateway);
        self.routes.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached() -> Attached {
        let interface = |name: &str, sandbox: Option<&str>| Interface {
            name: name.to_owned(),
            mac: sandbox.map(|_| "02:00:00:00:00:01".to_owned()),
            mtu: sandbox.map(|_| 1500),
            sandbox: sandbox.map(str::to_owned),
        };
        Attached {
            interfaces: vec![interface("ve-1", None), interface("eth0", Some("/run/x"))],
            addresses: vec![Address {
                address: "10.1.0.2/24".parse().unwrap(),
                gateway: Some("10.1.0.1".parse().unwrap()),
            }],
            default_routes: vec!["10.1.0.1".parse().unwrap()],
            dns: Dns {
                nameservers: vec!["10.1.0.1".to_owned()],
                ..Dns::default()
            },
        }
    }

    #[test]
    fn each_version_has_its_shape() {
        let old = attached().result(Version::V0_3_1, None).unwrap();
        let expected = json!({
            "cniVersion": "0.3.1",
            "interfaces": [
                {"name": "ve-1"},
                {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/x"},
            ],
            "ips": [{"version": "4", "address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
            "dns": {"nameservers": ["10.1.0.1"]},
        });
        assert_eq!(old, expected);
        let new = attached().result(Version::V1_1_0, None).unwrap();
        assert_eq!(new["interfaces"][1]["mtu"], 1500);
        assert!(new["ips"][0].get("version").is_none());
    }

    #[test]
    fn what_the_chain_has_said_stays() {
        let before = json!({
            "interfaces": [{"name": "lo", "sandbox": "/run/x"}], "ips": null,
            "dns": {"nameservers": ["1.1.1.1"]}, "of-others": true,
        });
        let result = attached().result(Version::V1_0_0, Some(&before)).unwrap();
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(result["ips"][0]["interface"], 2);
        assert_eq!(result["dns"]["nameservers"], json!(["1.1.1.1"]));
        assert_eq!(result["of-others"], true);
        let previous = Previous::parse(&result).unwrap();
        let (index, _) = previous.interface("eth0").unwrap();
        assert_eq!(previous.addresses_of(index).count(), 1);
        assert!(previous.has_default_route("10.1.0.1".parse().unwrap()));
        assert!(previous.interface("ve-1").is_none(), "not of the container");
        for bad in [json!([]), json!({"ips": {}}), json!({"interfaces": 1})] {
            assert!(attached().result(Version::V1_0_0, Some(&bad)).is_err());
        }
        assert!(Previous::parse(&json!({"ips": [{"address": "x"}]})).is_err());
    }
}
