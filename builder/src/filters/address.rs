//! Filters of IP addresses and networks, as Ansible has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Arguments;
use crate::data::Data;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// An address, alone or in a network.
#[derive(Debug, Clone, Copy)]
struct Interface {
    address: IpAddr,
    prefix: Option<u32>,
}

impl Interface {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        let prefix = match prefix {
            None => None,
            Some(text) if text.contains('.') => {
                let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
                let length = mask.leading_ones();
                (length + mask.trailing_zeros() == 32 && address.is_ipv4()).then_some(Some(length))?
            }
            Some(text) => Some(text.parse().ok()?),
        };
        let interface = Self { address, prefix };
        (interface.length() <= interface.bits()).then_some(interface)
    }

    fn bits(self) -> u32 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn length(self) -> u32 {
        self.prefix.unwrap_or_else(|| self.bits())
    }

    fn number(self) -> u128 {
        match self.address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        }
    }

    fn with_number(self, number: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number & u128::from(u32::MAX)).unwrap_or(0))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// The bits that are the host's.
    fn host_mask(self) -> u128 {
        let host = self.bits() - self.length();
        if host == 128 { u128::MAX } else { (1 << host) - 1 }
    }

    fn network(self) -> u128 {
        self.number() & !self.host_mask()
    }
}

pub(super) fn ipaddr(arguments: &Arguments) -> Result<Data, String> {
    let text = match arguments.value() {
        Data::Text(text) => text.clone(),
        Data::Address(address) => address.host.clone(),
        Data::List(values) => {
            let rest = |value: &Data| Arguments {
                values: std::iter::once(value.clone()).chain(arguments.values.iter().skip(1).cloned()).collect(),
                named: arguments.named.clone(),
            };
            let found = values.iter().map(|value| ipaddr(&rest(value))).collect::<Result<Vec<_>, _>>()?;
            return Ok(Data::List(found.into_iter().filter(|value| *value != Data::Bool(false)).collect()));
        }
        _ => return Ok(Data::Bool(false)),
    };
    let Some(interface) = Interface::parse(&text) else { return Ok(Data::Bool(false)) };
    if let Some(Data::Int(index)) = arguments.get(1, "query") {
        return nth(interface, *index);
    }
    let query = arguments.text_at(1, "query")?.unwrap_or_default();
    let in_network = |number: u128| Data::Text(format!("{}/{}", interface.with_number(number), interface.length()));
    let text = |address: IpAddr| Data::Text(address.to_string());
    Ok(match query.as_str() {
        "" => Data::Text(text_with_prefix(interface)),
        "address" | "ip" => text(interface.address),
        "network" => text(interface.with_number(interface.network())),
        "prefix" => Data::Int(i64::from(interface.length())),
        "netmask" => text(interface.with_number(!interface.host_mask())),
        "broadcast" if interface.address.is_ipv4() => text(interface.with_number(interface.network() | interface.host_mask())),
        "broadcast" => Data::Bool(false),
        "version" => Data::Int(if interface.address.is_ipv4() { 4 } else { 6 }),
        "cidr" | "subnet" => in_network(interface.network()),
        "size" => interface
            .host_mask()
            .checked_add(1)
            .and_then(|size| i64::try_from(size).ok())
            .map_or_else(|| Err("gives no size of so large a network".to_owned()), |size| Ok(Data::Int(size)))?,
        other => return Err(format!("does not know the query `{other}`")),
    })
}

fn text_with_prefix(interface: Interface) -> String {
    interface.prefix.map_or_else(|| interface.address.to_string(), |prefix| format!("{}/{prefix}", interface.address))
}

/// The address of that number in the network, from the end if it is negative.
fn nth(interface: Interface, index: i64) -> Result<Data, String> {
    let magnitude = u128::from(index.unsigned_abs());
    let offset = if index < 0 { interface.host_mask().checked_sub(magnitude - 1) } else { Some(magnitude) };
    let offset = offset.filter(|offset| *offset <= interface.host_mask());
    let offset = offset.ok_or_else(|| format!("finds no address number {index} in `{}`", text_with_prefix(interface)))?;
    Ok(Data::Text(format!("{}/{}", interface.with_number(interface.network() | offset), interface.length())))
}

pub(super) fn of_family(arguments: &Arguments, family: Family) -> Result<Data, String> {
    let fits = |data: &Data| {
        let text = match data {
            Data::Text(text) => text,
            Data::Address(address) => &address.host,
            _ => return false,
        };
        Interface::parse(text).is_some_and(|interface| interface.address.is_ipv4() == (family == Family::V4))
    };
    Ok(match arguments.value() {
        Data::List(values) => Data::List(values.iter().filter(|value| fits(value)).cloned().collect()),
        value if fits(value) => value.clone(),
        _ => Data::Bool(false),
    })
}

pub(super) fn ipwrap(arguments: &Arguments) -> Result<Data, String> {
    let wrap = |data: &Data| match data {
        Data::Text(text) if Interface::parse(text).is_some_and(|interface| interface.address.is_ipv6()) => {
            Data::Text(text.split_once('/').map_or_else(|| format!("[{text}]"), |(address, prefix)| format!("[{address}]/{prefix}")))
        }
        other => other.clone(),
    };
    Ok(match arguments.value() {
        Data::List(values) => Data::List(values.iter().map(wrap).collect()),
        value => wrap(value),
    })
}
