//! The kinds of the API group, each spelled once.

/// The API group of experiments.
pub const GROUP: &str = "chaos-mesh.org";
/// Its one version.
pub const API_VERSION: &str = "chaos-mesh.org/v1alpha1";

/// The group of our own kinds, which nobody writes by hand.
pub const OWN_GROUP: &str = "kfault.dev";

/// A kind of the API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Faults of the network.
    Network,
    /// A kind that exists in the API and that this version does not serve.
    Later(&'static str),
}

const NETWORK: &str = "NetworkChaos";

/// Kinds of the API that this version recognises and does not serve.
const LATER: [&str; 22] = [
    "AWSChaos",
    "AzureChaos",
    "BlockChaos",
    "DNSChaos",
    "GCPChaos",
    "HTTPChaos",
    "IOChaos",
    "JVMChaos",
    "KernelChaos",
    "PhysicalMachine",
    "PhysicalMachineChaos",
    "PodChaos",
    "PodHttpChaos",
    "PodIOChaos",
    "PodNetworkChaos",
    "RemoteCluster",
    "Schedule",
    "StatusCheck",
    "StressChaos",
    "TimeChaos",
    "Workflow",
    "WorkflowNode",
];

impl Kind {
    /// The kind of this name, spelled exactly.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        if name == NETWORK {
            return Some(Self::Network);
        }
        LATER.iter().find(|later| **later == name).map(|later| Self::Later(later))
    }

    /// Its name, as in `kind:`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => NETWORK,
            Self::Later(name) => name,
        }
    }

    /// The name of a kind that differs from `name` in case only.
    #[must_use]
    pub fn nearly(name: &str) -> Option<&'static str> {
        [&NETWORK].into_iter().chain(&LATER).find(|kind| kind.eq_ignore_ascii_case(name)).copied()
    }

    /// The kinds that this version serves, for messages.
    #[must_use]
    pub fn served() -> &'static str {
        NETWORK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for name in LATER.iter().chain([&NETWORK]) {
            assert_eq!(Kind::find(name).map(Kind::name), Some(*name));
        }
        assert_eq!(Kind::find("networkchaos"), None);
        assert_eq!(Kind::nearly("networkchaos"), Some(NETWORK));
    }
}
