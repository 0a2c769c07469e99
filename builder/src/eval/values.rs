//! The values that definitions handle: paths, addresses and steps.

#![expect(clippy::unnecessary_wraps, reason = "builtins give results, whether they can fail or not")]

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash as _;

use allocative::Allocative;
use starlark::any::ProvidesStaticType;
use starlark::collections::StarlarkHasher;
use starlark::environment::{GlobalsBuilder, Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::values::none::NoneOr;
use starlark::values::{Heap, NoSerialize, StarlarkPagablePanic, StarlarkValue, Value, ValueLike, starlark_value};
use starlark::{starlark_module, starlark_simple_value};

use super::context::Context;
use super::failure::Failure;
use crate::data::{Address, TargetPath};
use crate::environment::Wanted;
use crate::environment::names::refuse_host_name;

/// A place on the target.
#[derive(Debug, Clone, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct PathValue(#[allocative(skip)] pub(super) TargetPath);
starlark_simple_value!(PathValue);

impl fmt::Display for PathValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

starlark::methods_static!(PATH_METHODS = path_methods);

#[starlark_value(type = "Path")]
impl<'v> StarlarkValue<'v> for PathValue {
    fn get_methods() -> Option<&'static Methods> {
        Some(PATH_METHODS.methods())
    }

    fn div(&self, other: Value<'v>, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        let Some(below) = other.unpack_str() else {
            return Err(Failure::new("E0403", format!("a path is joined with a string, not `{}`", other.get_type())).into());
        };
        let joined = self.0.join(below).map_err(|error| Failure::new("E0403", error.to_string()))?;
        Ok(heap.alloc(Self(joined)))
    }

    fn add(&self, rhs: Value<'v>, heap: Heap<'v>) -> Option<starlark::Result<Value<'v>>> {
        rhs.unpack_str().map(|text| Ok(heap.alloc(format!("{self}{text}"))))
    }

    fn radd(&self, lhs: Value<'v>, heap: Heap<'v>) -> Option<starlark::Result<Value<'v>>> {
        lhs.unpack_str().map(|text| Ok(heap.alloc(format!("{text}{self}"))))
    }

    fn equals(&self, other: Value<'v>) -> starlark::Result<bool> {
        Ok(other.downcast_ref::<Self>().is_some_and(|other| other.0 == self.0))
    }

    fn compare(&self, other: Value<'v>) -> starlark::Result<Ordering> {
        match other.downcast_ref::<Self>() {
            Some(other) => Ok(self.0.cmp(&other.0)),
            None => Err(Failure::new("E0403", format!("a path cannot be compared with `{}`", other.get_type())).into()),
        }
    }

    fn write_hash(&self, hasher: &mut StarlarkHasher) -> starlark::Result<()> {
        self.0.hash(hasher);
        Ok(())
    }
}

/// A place on the target: a file, a build's output, a state directory.
///
/// In text it is the absolute path, so `"%s" % path` and templates just work. `path / "bin/x"` goes below it; `+` with a string gives
/// text. Paths are compared and sorted by their texts.
#[starlark_module]
fn path_methods(builder: &mut MethodsBuilder) {
    /// The last part of it.
    ///
    /// # Example
    /// ```python
    /// config = self.add(File("app.conf"))
    /// self.log("%s in %s" % (config.name, config.parent))
    /// ```
    #[starlark(attribute)]
    fn name(this: &PathValue) -> starlark::Result<String> {
        Ok(this.0.name().to_owned())
    }

    /// (Path or None) The path one level up; None for the tree, output or state directory itself.
    ///
    /// # Example
    /// ```python
    /// self.log((self.path("etc/app.conf").parent / "other").name)
    /// ```
    #[starlark(attribute)]
    fn parent(this: &PathValue) -> starlark::Result<NoneOr<PathValue>> {
        Ok(NoneOr::from_option(this.0.parent().map(PathValue)))
    }
}

/// A host and a port.
#[derive(Debug, Clone, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct AddressValue(#[allocative(skip)] pub(super) Address);
starlark_simple_value!(AddressValue);

impl fmt::Display for AddressValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

starlark::methods_static!(ADDRESS_METHODS = address_methods);

#[starlark_value(type = "Address")]
impl<'v> StarlarkValue<'v> for AddressValue {
    fn get_methods() -> Option<&'static Methods> {
        Some(ADDRESS_METHODS.methods())
    }

    fn equals(&self, other: Value<'v>) -> starlark::Result<bool> {
        Ok(other.downcast_ref::<Self>().is_some_and(|other| other.0 == self.0))
    }

    fn write_hash(&self, hasher: &mut StarlarkHasher) -> starlark::Result<()> {
        (&self.0.host, self.0.port).hash(hasher);
        Ok(())
    }
}

/// A host and a port.
///
/// In text it is `host:port`, and `[host]:port` for an IPv6 address.
#[starlark_module]
fn address_methods(builder: &mut MethodsBuilder) {
    /// The host as it was given, without the brackets of an IPv6 address.
    ///
    /// # Example
    /// ```python
    /// self.log(Address("www.example.net", 80).host)
    /// ```
    #[starlark(attribute)]
    fn host(this: &AddressValue) -> starlark::Result<String> {
        Ok(this.0.host.clone())
    }

    /// The port, 1 to 65535.
    ///
    /// # Example
    /// ```python
    /// self.log(str(Address("::1", 8080).port))
    /// ```
    #[starlark(attribute)]
    fn port(this: &AddressValue) -> starlark::Result<i32> {
        Ok(i32::from(this.0.port))
    }

    /// The host's first IPv4 address: itself, or as the environment's `[resolver]` has it.
    ///
    /// # Errors
    /// * `E0404`: there is none
    ///
    /// # Example
    /// ```python
    /// self.log(Address("www.example.net", 80).v4)
    /// ```
    #[starlark(attribute)]
    fn v4(this: &AddressValue) -> starlark::Result<String> {
        Ok(this.0.v4.clone().ok_or_else(|| no_address(&this.0.host, "IPv4 "))?)
    }

    /// What clients connect to: the host by its name, and the port.
    ///
    /// # Example
    /// ```python
    /// self.log(Address("www.example.net", 80).connect)
    /// ```
    #[starlark(attribute)]
    fn connect(this: &AddressValue) -> starlark::Result<String> {
        Ok(this.0.to_string())
    }

    /// Where a server listens by IPv4: the same port at the host's first IPv4 address.
    ///
    /// # Errors
    /// * `E0404`: there is none
    ///
    /// # Example
    /// ```python
    /// self.log(Address("www.example.net", 80).listen.host)
    /// ```
    #[starlark(attribute)]
    fn listen(this: &AddressValue) -> starlark::Result<AddressValue> {
        let found = this.0.v4.as_ref().ok_or_else(|| no_address(&this.0.host, "IPv4 "))?;
        Ok(AddressValue(Address { host: found.clone(), port: this.0.port, v4: Some(found.clone()), v6: None }))
    }

    /// Where a server listens by IPv6: the same port at the host's first IPv6 address.
    ///
    /// # Errors
    /// * `E0404`: there is none
    ///
    /// # Example
    /// ```python
    /// self.log(Address("2001:db8::7", 80).listen_v6)
    /// ```
    #[starlark(attribute)]
    fn listen_v6(this: &AddressValue) -> starlark::Result<AddressValue> {
        let found = this.0.v6.as_ref().ok_or_else(|| no_address(&this.0.host, "IPv6 "))?;
        Ok(AddressValue(Address { host: found.clone(), port: this.0.port, v4: None, v6: Some(found.clone()) }))
    }

    /// The host's first IPv6 address: itself, or as the environment's `[resolver]` has it.
    ///
    /// # Errors
    /// * `E0404`: there is none
    ///
    /// # Example
    /// ```python
    /// self.log(Address("::1", 80).v6)
    /// ```
    #[starlark(attribute)]
    fn v6(this: &AddressValue) -> starlark::Result<String> {
        Ok(this.0.v6.clone().ok_or_else(|| no_address(&this.0.host, "IPv6 "))?)
    }
}

/// Says that the environment's resolver does not know a host.
pub(super) fn no_address(host: &str, family: &str) -> Failure {
    Failure::new("E0404", format!("no {family}address for `{host}`")).hint("add it to [resolver] in the environment's environment.toml")
}

/// A step that was made and waits for `self.add`.
#[derive(Debug, Clone, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct StepValue {
    /// Its place in the context's list.
    pub(super) index: usize,
    /// How it is called in messages, such as ``File `app.conf` ``.
    pub(super) label: String,
}
starlark_simple_value!(StepValue);

impl fmt::Display for StepValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.label)
    }
}

#[expect(clippy::elidable_lifetime_names, reason = "the macro wants the name")]
#[starlark_value(type = "Step")]
impl<'v> StarlarkValue<'v> for StepValue {}

/// A port number from Starlark.
pub(super) fn to_port(number: i32) -> Result<u16, Failure> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Failure::new("E0405", format!("`{number}` is not a port: ports go from 1 to 65535")))
}

#[starlark_module]
pub(super) fn builtins(builder: &mut GlobalsBuilder) {
    /// A host and a port; in text `host:port`.
    ///
    /// # Arguments
    /// * `host`: a name, or an IPv4 or IPv6 address with or without brackets
    /// * `port`: 1 to 65535
    /// * `require_v4`: (bool or str) whether there must be an IPv4 address in `[resolver]`: `True`, `False` for none in any case, or
    ///   `"optional"`; as the environment has it if not given
    /// * `require_v6`: (bool or str) the same for IPv6
    ///
    /// # Errors
    /// * `E0404`: an address that is required is not known
    /// * `E0405`: the host is none, or the port is none
    ///
    /// # Example
    /// ```python
    /// self.provide("web:address", Address(self.host.fqdn, self.port))
    /// ```
    fn Address<'v>(
        host: &str,
        port: i32,
        #[starlark(require = named, default = NoneOr::None)] require_v4: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] require_v6: NoneOr<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<AddressValue> {
        let port = to_port(port)?;
        let host = checked_host(host)?;
        let Some(context) = Context::find(eval) else {
            return Ok(AddressValue(crate::environment::Resolver::default().address(host, port)));
        };
        let environment = &context.scene.environment;
        let mut address = environment.resolver.address(host, port);
        for (family, found, own, of_all) in
            [("IPv4 ", &mut address.v4, require_v4, environment.require_v4), ("IPv6 ", &mut address.v6, require_v6, environment.require_v6)]
        {
            match own.into_option().map_or(Ok(of_all), wanted)? {
                Wanted::Required if found.is_none() => return Err(no_address(host, family).into()),
                Wanted::Required | Wanted::Optional => {}
                Wanted::Never => *found = None,
            }
        }
        Ok(AddressValue(address))
    }
}

/// A host as an address names it: a name, or an IP address, with or without brackets.
fn checked_host(written: &str) -> Result<&str, Failure> {
    let bare = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(written);
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(bare);
    }
    let Some(reason) = refuse_host_name(written) else { return Ok(written) };
    let failure = Failure::new("E0405", format!("`{}` is not a host: {reason}", written.escape_debug()));
    Err(if written.contains('%') {
        failure.hint("an address with a zone means something on one machine only")
    } else {
        failure.hint("give the host and the port apart: `Address(\"www.example.net\", 80)`")
    })
}

fn wanted(value: Value<'_>) -> Result<Wanted, Failure> {
    match (value.unpack_bool(), value.unpack_str()) {
        (Some(true), _) => Ok(Wanted::Required),
        (Some(false), _) => Ok(Wanted::Never),
        (None, Some("optional")) => Ok(Wanted::Optional),
        (None, _) => Err(Failure::new("E0405", "`require_v4` and `require_v6` are True, False or \"optional\"")),
    }
}
