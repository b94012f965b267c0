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
    /// Faults of pods as a whole.
    Pod,
    /// A kind that exists in the API and that this version does not serve.
    Later(&'static str),
}

const NETWORK: &str = "NetworkChaos";
const POD: &str = "PodChaos";
/// What starts experiments by the clock.
pub const SCHEDULE: &str = "Schedule";

/// Kinds of the API that this version recognises and does not serve.
const LATER: [&str; 21] = [
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
    "PodHttpChaos",
    "PodIOChaos",
    "PodNetworkChaos",
    "RemoteCluster",
    SCHEDULE,
    "StatusCheck",
    "StressChaos",
    "TimeChaos",
    "Workflow",
    "WorkflowNode",
];

/// What another implementation asks its own agents for.
const INTERNAL: [&str; 3] = ["PodHttpChaos", "PodIOChaos", "PodNetworkChaos"];

impl Kind {
    /// The kinds that this version serves.
    pub const SERVED: [Self; 2] = [Self::Network, Self::Pod];

    /// The kind of this name, spelled exactly.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        if let Some(kind) = Self::SERVED.into_iter().find(|kind| kind.name() == name) {
            return Some(kind);
        }
        LATER.iter().find(|later| **later == name).map(|later| Self::Later(later))
    }

    /// Experiments of the public API, as opposed to what starts, checks or carries them.
    #[must_use]
    pub fn is_experiment(self) -> bool {
        self.name().ends_with("Chaos") && !INTERNAL.contains(&self.name())
    }

    /// Every kind of experiment, served or not.
    pub fn experiments() -> impl Iterator<Item = Self> {
        let later = LATER.into_iter().map(Self::Later);
        Self::SERVED.into_iter().chain(later).filter(|kind| kind.is_experiment())
    }

    /// Its name, as in `kind:`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => NETWORK,
            Self::Pod => POD,
            Self::Later(name) => name,
        }
    }

    /// The name of a kind that differs from `name` in case only.
    #[must_use]
    pub fn nearly(name: &str) -> Option<&'static str> {
        let all = [NETWORK, POD].into_iter().chain(LATER);
        all.into_iter().find(|kind| kind.eq_ignore_ascii_case(name))
    }

    /// The kinds that this version serves, for messages.
    #[must_use]
    pub fn served() -> String {
        Self::SERVED.map(Self::name).join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for name in LATER.iter().chain([&NETWORK, &POD]) {
            assert_eq!(Kind::find(name).map(Kind::name), Some(*name));
        }
        assert_eq!(Kind::find("networkchaos"), None);
        assert_eq!(Kind::nearly("networkchaos"), Some(NETWORK));
    }
}
