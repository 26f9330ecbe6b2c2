//! The table of HTTP routes: the handler of each, its largest body, and the access that a request needs.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};

use super::guard::{Claims, Kind, Refused};
use super::reply::Refusal;
use super::{HttpLimits, HttpState, intake, metrics, pipelines, records, shadows, tables, views};
use crate::access::{Need, Operation, Principal, Resource};

/// A route of the table.
struct Route {
    method: &'static str,
    path: &'static str,
    /// The access that a request needs; none for probes.
    needs: &'static [Need],
    body_max: fn(&HttpLimits) -> usize,
}

macro_rules! routes {
    ($($method:ident $path:literal => $module:ident::$function:ident, up to $limit:ident,
       needs [$($operation:ident $resource:ident),*];)*) => {
        const ROUTES: &[Route] = &[$(Route {
            method: stringify!($method),
            path: $path,
            needs: &[$((Operation::$operation, Resource::$resource)),*],
            body_max: |limits| limits.$limit,
        },)*];

        fn served(state: &Arc<HttpState>) -> Router<Arc<HttpState>> {
            let checked = |route| middleware::from_fn_with_state((Arc::clone(state), route), check);
            let mut routes = ROUTES.iter();
            let mut next = || routes.next().expect("the table has as many routes as this function");
            let mut router = Router::new();
            $({
                let route = next();
                let limit = DefaultBodyLimit::max((route.body_max)(&state.limits));
                let served = $method($module::$function).layer(limit).layer(checked(route));
                router = router.route(route.path, served);
            })*
            router
        }
    };
}

routes! {
    get "/healthz" => views::healthy, up to body_bytes, needs [];
    get "/readyz" => views::ready, up to body_bytes, needs [];
    get "/metrics" => metrics::render, up to body_bytes, needs [Describe Cluster];
    get "/v1/topics" => views::topics, up to body_bytes, needs [Describe Topic];
    get "/v1/topics/{name}" => views::topic, up to body_bytes, needs [Describe Topic];
    post "/v1/topics/{name}/records" => records::write, up to body_bytes, needs [Write Topic];
    get "/v1/topics/{name}/intake/{partition}/{offset}" => intake::ticket, up to body_bytes, needs [Describe Topic];
    get "/v1/groups" => views::groups, up to body_bytes, needs [Describe Group];
    get "/v1/groups/{name}" => views::group, up to body_bytes, needs [Describe Group, Describe Topic];
    get "/v1/plugins" => pipelines::plugins, up to body_bytes, needs [Describe Cluster];
    post "/v1/plugins" => pipelines::push, up to component_bytes, needs [Alter Cluster];
    get "/v1/pipelines" => pipelines::pipelines, up to body_bytes, needs [Describe Cluster];
    post "/v1/pipelines" => pipelines::deploy, up to body_bytes, needs [Alter Cluster];
    get "/v1/pipelines/{name}" => pipelines::pipeline, up to body_bytes, needs [Describe Cluster];
    delete "/v1/pipelines/{name}" => pipelines::delete, up to body_bytes, needs [Alter Cluster];
    post "/v1/pipelines/{name}/limits" => pipelines::limit, up to body_bytes, needs [Alter Cluster];
    post "/v1/pipelines/{name}/pause" => pipelines::pause, up to body_bytes, needs [Alter Cluster];
    post "/v1/pipelines/{name}/resume" => pipelines::resume, up to body_bytes, needs [Alter Cluster];
    get "/v1/pipelines/{name}/history" => pipelines::history, up to body_bytes, needs [Describe Cluster];
    get "/v1/pipelines/{name}/history/{revision}" => pipelines::revision, up to body_bytes, needs [Describe Cluster];
    post "/v1/pipelines/{name}/rollback" => pipelines::rollback, up to body_bytes, needs [Alter Cluster];
    post "/v1/pipelines/{name}/redrive" => pipelines::redrive, up to body_bytes, needs [Alter Cluster, Read Topic, Write Topic];
    get "/v1/pipelines/{name}/shadow" => shadows::shadow, up to body_bytes, needs [Describe Cluster, Read Topic];
    post "/v1/pipelines/{name}/shadow" => shadows::start, up to body_bytes, needs [Alter Cluster, Read Topic];
    delete "/v1/pipelines/{name}/shadow" => shadows::stop, up to body_bytes, needs [Alter Cluster];
    post "/v1/pipelines/{name}/replay" => shadows::replay, up to body_bytes, needs [Alter Cluster, Read Topic];
    get "/v1/tables" => tables::tables, up to body_bytes, needs [Describe Topic];
    post "/v1/tables" => tables::create, up to body_bytes, needs [Alter Cluster];
    get "/v1/tables/{name}" => tables::table, up to body_bytes, needs [Describe Topic];
    delete "/v1/tables/{name}" => tables::delete, up to body_bytes, needs [Alter Cluster];
    get "/v1/tables/{name}/records" => tables::records, up to body_bytes, needs [Read Topic];
    get "/v1/tables/{name}/records/{key}" => tables::record, up to body_bytes, needs [Read Topic];
    get "/v1/tables/{name}/windows" => tables::windows, up to body_bytes, needs [Read Topic];
    get "/v1/tables/{name}/follow" => tables::follow, up to body_bytes, needs [Read Topic];
    get "/v1/pipelines/{name}/logs" => pipelines::logs, up to body_bytes, needs [Describe Cluster];
}

impl Route {
    fn kind(&self) -> Kind {
        if self.needs.is_empty() {
            Kind::Probe
        } else if self.needs.iter().any(|(operation, _)| operation.changes()) {
            Kind::Change
        } else {
            Kind::Read
        }
    }
}

pub(super) fn router(state: Arc<HttpState>) -> Router {
    served(&state)
        .fallback(async |State(state): State<Arc<HttpState>>, request: Request| {
            let nothing = Refusal::not_found(
                "there is nothing here; /v1/pipelines, /v1/tables, /v1/topics, /metrics are",
            );
            verdict(&state, None, &request).map_or_else(Refusal::from, |()| nothing)
        })
        .method_not_allowed_fallback(async |State(state): State<Arc<HttpState>>, request: Request| {
            verdict(&state, None, &request).map_or_else(Refusal::from, |()| Refusal::method())
        })
        .with_state(state)
}

async fn check(
    State((state, route)): State<(Arc<HttpState>, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(refused) = verdict(&state, Some(route), &request) {
        tracing::debug!(method = route.method, path = route.path, %refused, "HTTP request refused");
        return Refusal::from(refused).into_response();
    }
    // Refused before the body is read: a client that expects `100 Continue` would wait forever.
    let limit = (route.body_max)(&state.limits);
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if length > limit as u64 {
        if length <= DRAIN_MAX_BYTES && !request.headers().contains_key(header::EXPECT) {
            drain(request.into_body()).await;
        }
        return Refusal::too_large(limit).into_response();
    }
    next.run(request).await
}

/// Bytes of a body that is too large which are read and thrown away.
const DRAIN_MAX_BYTES: u64 = 256 << 20;

/// Who does not ask first sends all of a body before it looks at the answer. If the connection were closed meanwhile, it would see that
/// and no answer.
async fn drain(mut body: Body) {
    // It has the length that was told, or the connection ends.
    while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
}

fn verdict(state: &HttpState, route: Option<&Route>, request: &Request) -> Result<(), Refused> {
    // A proxy between a browser and this server may have gone by the other one.
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Refused::Host);
    }
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    state.guard.check(Claims {
        host: text(header::HOST),
        origin: text(header::ORIGIN),
        authorization: text(header::AUTHORIZATION),
        kind: match (route, request.method()) {
            (Some(route), _) => route.kind(),
            (None, &Method::GET | &Method::HEAD) => Kind::Read,
            (None, _) => Kind::Change,
        },
    })?;
    match Principal::Anonymous.lacks(route.map_or(&[], |route| route.needs)) {
        Some((operation, resource)) => Err(Refused::Access { operation, resource }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_every_route() {
        let reference = include_str!("../../HTTP.md");
        for Route { method, path, .. } in ROUTES {
            let request = format!("`{} {path}", method.to_uppercase());
            assert!(reference.contains(&request), "{request}` is not in HTTP.md");
        }
    }

    /// A changing route that is listed as a read would be served without the token.
    #[test]
    fn only_probes_need_nothing_and_only_gets_change_nothing() {
        for route in ROUTES {
            let (method, path) = (route.method, route.path);
            let probe = ["/healthz", "/readyz"].contains(&path);
            let expect = if probe {
                Kind::Probe
            } else if method == "get" {
                Kind::Read
            } else {
                Kind::Change
            };
            assert_eq!(route.kind(), expect, "{method} {path}");
            assert_eq!(Principal::Anonymous.lacks(route.needs), None, "{method} {path}");
        }
    }
}
