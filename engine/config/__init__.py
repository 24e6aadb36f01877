"""The engine's configuration: one section per stage, from defaults, a TOML file and OUSEL_* variables.

`OUSEL_KAFKA__BOOTSTRAP=host:port` sets `kafka.bootstrap`; variables win over the file named by `--config`, which wins
over the defaults. Every field is checked here, at the edge; the rooms behind trust what they get.
"""

from engine.config.address import Address, address_problem
from engine.config.clients import ClientsConfig
from engine.config.events import EventsConfig
from engine.config.kafka import KafkaConfig
from engine.config.load import Config, Settings, ignored_variables, load_config, load_settings
from engine.config.log import LogConfig, LogFormat
from engine.config.model import CanaryConfig, IndexConfig, InferenceConfig, ModelConfig
from engine.config.quality import QualityConfig
from engine.config.ranking import RankingConfig
from engine.config.registry import RegistryConfig, models_topic
from engine.config.section import ConfigError, Device, Precision, Section
from engine.config.security import SecurityConfig
from engine.config.serving import ServingConfig
from engine.config.snapshot import SnapshotConfig
from engine.config.state import StateConfig
from engine.config.tls import TlsConfig
from engine.config.traces import TracesConfig

__all__ = [
    "Address",
    "CanaryConfig",
    "ClientsConfig",
    "Config",
    "ConfigError",
    "Device",
    "EventsConfig",
    "IndexConfig",
    "InferenceConfig",
    "KafkaConfig",
    "LogConfig",
    "LogFormat",
    "ModelConfig",
    "Precision",
    "QualityConfig",
    "RankingConfig",
    "RegistryConfig",
    "Section",
    "SecurityConfig",
    "ServingConfig",
    "Settings",
    "SnapshotConfig",
    "StateConfig",
    "TlsConfig",
    "TracesConfig",
    "address_problem",
    "ignored_variables",
    "load_config",
    "load_settings",
    "models_topic",
]
