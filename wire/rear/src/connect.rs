//! Ways to a seller: HTTPS with both keys proven, plain HTTP to official nodes, or any stream that somebody has, such as one
//! of a link.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use fluidos_identity::{NodeId, NodeKey, TlsError, client_config, peer_node_id};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ALPN;

/// A stream to a seller.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Leads to one seller.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// Returns a new stream to the seller and the key it has proven, or why there is none. Dropped when it takes too long.
    async fn connect(&self) -> Result<(Box<dyn Stream>, Option<NodeId>), String>;

    /// Returns what to call the seller in the `Host` header and in errors.
    fn host(&self) -> String;
}

/// Where a seller is and who it must be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// Where REAR answers.
    pub address: SocketAddr,
    /// The key it must prove; `None` takes any, and the client says which.
    pub expected: Option<NodeId>,
}

/// HTTPS: both keys are proven.
pub(crate) struct Https {
    target: Target,
    connector: TlsConnector,
}

impl Https {
    pub(crate) fn new(key: &NodeKey, target: Target) -> Result<Self, TlsError> {
        let config = client_config(key, target.expected, ALPN)?;
        Ok(Self { target, connector: TlsConnector::from(Arc::new(config)) })
    }
}

#[async_trait]
impl Connect for Https {
    async fn connect(&self) -> Result<(Box<dyn Stream>, Option<NodeId>), String> {
        let stream = tcp(self.target.address).await?;
        let name = ServerName::IpAddress(self.target.address.ip().into());
        let stream = self.connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        let seller = peer_node_id(stream.get_ref().1.peer_certificates()).map_err(|error| error.to_string())?;
        let seller = seller.ok_or("the seller proved no key")?;
        Ok((Box::new(stream), Some(seller)))
    }

    fn host(&self) -> String {
        self.target.address.to_string()
    }
}

/// Plain HTTP, as official nodes speak it. Nobody proves anything: use it only with a seller that its owner named, and
/// send nothing that others must not read or change.
pub struct PlainHttp {
    /// Where REAR answers.
    pub address: SocketAddr,
}

#[async_trait]
impl Connect for PlainHttp {
    async fn connect(&self) -> Result<(Box<dyn Stream>, Option<NodeId>), String> {
        Ok((Box::new(tcp(self.address).await?), None))
    }

    fn host(&self) -> String {
        self.address.to_string()
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}
