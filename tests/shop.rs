//! The shop on three real Debian hosts: deploy, change, fail, roll back, reboot. One test, because it is one story and the
//! hosts are dear.

use std::collections::BTreeSet;

use crate::lab::Lab;
use crate::world::{World, eventually};

const HOSTS: [(&str, u8); 3] = [("lb", 10), ("app1", 11), ("app2", 12)];
const SHOP: &str = "10.77.0.10:80";

/// The shop's hosts, with what the questions of the story are about.
struct Shop {
    lab: Lab,
    operator: World,
}

impl Shop {
    fn open() -> Self {
        let world = World::of("shop").with_network();
        // The hosts' network leads nowhere else, so what comes from outside is fetched before.
        world.sarsen(&["build", "lab"]).expect(0);
        let lab = Lab::start("shop", &HOSTS);
        let operator = lab.operator(world);
        Self { lab, operator }
    }

    /// What the shop says through its balancer, asked often enough to meet each host: pairs of version and host.
    /// Nothing while it says that no server is there: the balancer notices within its own interval that one is back.
    fn answers(&self) -> Option<BTreeSet<(String, String)>> {
        let answer = |_| {
            let (status, body) = self.lab.http_get(SHOP, "/")?;
            let page: serde_json::Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
            Some((page["version"].as_str()?.to_owned(), page["host"].as_str()?.to_owned()))
        };
        (0..8).map(answer).collect()
    }

    /// Insists that both hosts serve this version and no other.
    #[track_caller]
    fn serves(&self, version: &str) {
        let expected = BTreeSet::from(["app1", "app2"].map(|host| (version.to_owned(), host.to_owned())));
        eventually(&format!("both hosts serve version {version}"), || self.answers().as_ref() == Some(&expected));
    }

    /// The invocation of each host's service: another one after each start.
    fn invocations(&self) -> [String; 3] {
        [("lb", "shop-lb"), ("app1", "shop"), ("app2", "shop")].map(|(host, unit)| {
            let id = self.lab.on(host, &format!("systemctl show -P InvocationID {unit}.service"));
            assert_eq!(id.len(), 32, "{unit} on {host} runs");
            id
        })
    }

    fn generations(&self) -> [String; 3] {
        HOSTS.map(|(host, _)| self.lab.on(host, "readlink /var/lib/sarsen/profiles/shop/current"))
    }

    fn override_app(&self, text: &str) {
        let path = "environments/lab/environment.toml";
        let old = std::fs::read_to_string(self.operator.project().join(path)).expect("the environment");
        let base = old.split("\n[components.").next().expect("the part before").to_owned();
        self.operator.write(path, &format!("{base}\n{text}"));
    }
}

#[test]
fn the_shop_is_deployed_changed_broken_rolled_back_and_rebooted() {
    let shop = Shop::open();
    let deploy = || shop.operator.sarsen(&["deploy", "lab", "--yes"]);

    deploy().expect(0);
    shop.serves("1");
    assert_eq!(shop.generations(), ["gen/1", "gen/1", "gen/1"]);

    let first = shop.invocations();
    deploy().expect(0).says("nothing to do");
    assert_eq!(shop.invocations(), first, "a deployment of what runs restarts nothing");
    assert_eq!(shop.generations(), ["gen/1", "gen/1", "gen/1"], "and makes no generation");

    shop.override_app("[components.app]\nversion = \"2\"\n");
    deploy().expect(0);
    shop.serves("2");
    let second = shop.invocations();
    assert_eq!(second[0], first[0], "HAProxy goes on");
    assert_ne!(second[1], first[1], "app1 was restarted");
    assert_ne!(second[2], first[2], "app2 was restarted");

    shop.override_app("[components.app]\nversion = \"2\"\n\n[components.lb]\nconnections = 500\n");
    deploy().expect(0);
    assert_eq!(shop.invocations(), second, "another configuration of HAProxy is a reload, and nobody else's business");
    shop.serves("2");

    let before = shop.generations();
    shop.override_app("[components.app]\nversion = \"3\"\nhealthy = false\n\n[components.lb]\nconnections = 500\n");
    deploy().expect(4).says("app1").says("500");
    shop.serves("2");
    assert_eq!(shop.generations(), before, "every host is back at its recorded generation");

    shop.operator.sarsen(&["rollback", "lab", "--yes"]).expect(0);
    shop.serves("1");
    shop.operator.sarsen(&["status", "lab"]).expect(0).says("shop-lb.service  active");

    shop.lab.reboot("app1");
    eventually("the service is there after the reboot", || {
        shop.lab.http_get("10.77.0.11:8000", "/health").is_some_and(|(status, _)| status == 200)
    });
    shop.serves("1");
    deploy_again_after_reboot(&shop);
}

/// The host that was rebooted takes part in the next deployment as if nothing had been.
fn deploy_again_after_reboot(shop: &Shop) {
    shop.override_app("[components.app]\nversion = \"4\"\n");
    shop.operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    shop.serves("4");
}
