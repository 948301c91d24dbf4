//! The names of the metrics.

/// Lines of the audit log that were lost.
pub const AUDIT_LOST: &str = "boxpool_gateway_audit_lost_total";
/// Bytes on the wire.
pub const BYTES: &str = "boxpool_gateway_bytes_total";
/// Channels that ended.
pub const CHANNELS: &str = "boxpool_gateway_channels_total";
/// Channels that are open.
pub const CHANNELS_OPEN: &str = "boxpool_gateway_channels_open";
/// Parts of the way to a box.
pub const CONNECT_SECONDS: &str = "boxpool_gateway_connect_seconds";
/// Connections that came.
pub const CONNECTIONS: &str = "boxpool_gateway_connections_total";
/// Connections that were not let in.
pub const TURNED_AWAY: &str = "boxpool_gateway_connections_turned_away_total";
/// Logins.
pub const LOGINS: &str = "boxpool_gateway_logins_total";
/// Connections that are logged in.
pub const SESSIONS: &str = "boxpool_gateway_sessions";
/// Connects that wait for a machine.
pub const WAITING: &str = "boxpool_gateway_waiting";
/// Suspended boxes that keep their machine.
pub const PARKED: &str = "boxpool_gateway_parked";
/// Whether it is ready.
pub const READY: &str = "boxpool_gateway_ready";
