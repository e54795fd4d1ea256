//! Every HTTP/1 call on a node, exact: real servers and clients, compared with their own counts (acceptance group A).

mod bodies;
mod bulk;
mod chance;
mod counts;
mod ends;
mod families;
mod foreign;
mod heads;
mod impaired;
mod older;
mod overload;
mod paths;
mod pipelining;
mod proxies;
mod restart;
mod runtimes;
mod scale;
mod tunnels;
