//! HTTP transport of sd-worker on hyper: routes, SSE, limits.
