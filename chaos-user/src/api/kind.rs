//! The kinds of the API group, each spelled once.

/// The API group of experiments.
pub const GROUP: &str = "chaos-mesh.org";
/// Its one version.
pub const API_VERSION: &str = "chaos-mesh.org/v1alpha1";

/// The group of our own kinds.
pub const OWN_GROUP: &str = "kfault.dev";
/// Its one version.
pub const OWN_API_VERSION: &str = "kfault.dev/v1alpha1";
/// The version of both groups.
pub const VERSION: &str = "v1alpha1";

/// A kind of the API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Faults of the network.
    Network,
    /// Faults of pods as a whole.
    Pod,
    /// Load on processors, memory and disks.
    Stress,
    /// Limits of containers: a kind of our own.
    Throttle,
    /// Faults of name resolution.
    Dns,
    /// Faults of HTTP.
    Http,
    /// A kind that exists in the API and that this version does not serve.
    Later(&'static str),
}

const HTTP: &str = "HTTPChaos";
const NETWORK: &str = "NetworkChaos";
const POD: &str = "PodChaos";
const STRESS: &str = "StressChaos";
const THROTTLE: &str = "ThrottleChaos";
const DNS: &str = "DNSChaos";
/// What starts experiments by the clock.
pub const SCHEDULE: &str = "Schedule";

/// Kinds of the API that this version recognises and does not serve.
const LATER: [&str; 18] = [
    "AWSChaos",
    "AzureChaos",
    "BlockChaos",
    "GCPChaos",
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
    "TimeChaos",
    "Workflow",
    "WorkflowNode",
];

/// What another implementation asks its own agents for.
const INTERNAL: [&str; 3] = ["PodHttpChaos", "PodIOChaos", "PodNetworkChaos"];

impl Kind {
    /// The kinds that this version serves.
    pub const SERVED: [Self; 6] =
        [Self::Network, Self::Pod, Self::Stress, Self::Throttle, Self::Dns, Self::Http];

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
            Self::Stress => STRESS,
            Self::Throttle => THROTTLE,
            Self::Dns => DNS,
            Self::Http => HTTP,
            Self::Later(name) => name,
        }
    }

    /// The API group that it is in.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Self::Throttle => OWN_GROUP,
            Self::Network | Self::Pod | Self::Stress | Self::Dns | Self::Http | Self::Later(_) => {
                GROUP
            }
        }
    }

    /// `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Throttle => OWN_API_VERSION,
            Self::Network | Self::Pod | Self::Stress | Self::Dns | Self::Http | Self::Later(_) => {
                API_VERSION
            }
        }
    }

    /// `apiVersion` of a kind by its name; that of the public API where there is no such kind.
    #[must_use]
    pub fn api_version_of(name: &str) -> &'static str {
        Self::find(name).map_or(API_VERSION, Self::api_version)
    }

    /// The name of a kind that differs from `name` in case only.
    #[must_use]
    pub fn nearly(name: &str) -> Option<&'static str> {
        let mut all = Self::SERVED.map(Self::name).into_iter().chain(LATER);
        all.find(|kind| kind.eq_ignore_ascii_case(name))
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
        for name in LATER.iter().chain(&Kind::SERVED.map(Kind::name)) {
            assert_eq!(Kind::find(name).map(Kind::name), Some(*name));
        }
        assert_eq!(Kind::find("networkchaos"), None);
        assert_eq!(Kind::api_version_of(THROTTLE), OWN_API_VERSION);
        assert_eq!(Kind::api_version_of(STRESS), API_VERSION);
        assert_eq!(Kind::nearly("networkchaos"), Some(NETWORK));
    }
}
