//! `GET /v1/jobs`

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use http::{Response, StatusCode};
use operations_contract::{FieldError, JobList, JobState, OperationKind};
use sd_engine::{JobQuery, Order};

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::query::field;

/// How many jobs a page may have.
pub(crate) const LIMITS: RangeInclusive<usize> = 1..=1000;
/// How many it has unasked.
pub(crate) const LIMIT: usize = 100;
const PARAMETERS: &str = "state, operation, model, since_ms, until_ms, order, limit, cursor";

pub(crate) async fn handle(
    api: &Api,
    query: Option<&str>,
    caller: &Caller,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut query = parse(query.unwrap_or_default()).map_err(ApiError::invalid)?;
    query.caller = caller.only();
    let page = api.blocking(move |router| router.list(&query)).await?;
    let page = page.map_err(|error| ApiError::new(error.code(), error.to_string()))?;
    let next_cursor = page.next.map(|next| next.to_string());
    Ok(json(StatusCode::OK, &JobList { jobs: page.jobs, next_cursor }))
}

/// Reads the query, or tells all that is wrong with it.
fn parse(query: &str) -> Result<JobQuery, Vec<FieldError>> {
    let mut wanted = JobQuery { limit: Some(LIMIT), ..JobQuery::default() };
    let mut faults = Vec::new();
    let mut seen = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        // States may be many, in one list or in several.
        if name != "state" && seen.contains(&name) {
            faults.push(FieldError::new(field(&name), "is given more than once").with_value(&*value));
            continue;
        }
        if let Err(fault) = set(&mut wanted, &name, &value) {
            faults.push(fault.with_value(&*value));
        }
        seen.push(name);
    }
    if faults.is_empty() { Ok(wanted) } else { Err(faults) }
}

fn set(wanted: &mut JobQuery, name: &str, value: &str) -> Result<(), FieldError> {
    match name {
        "state" => {
            for state in value.split(',') {
                let found = JobState::ALL.iter().find(|known| known.as_str() == state.trim());
                let Some(found) = found else {
                    let known = JobState::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>();
                    let message = format!("`{state}` is no state of a job");
                    return Err(FieldError::new(name, message).with_limit(known.join(", ")));
                };
                wanted.states.push(*found);
            }
        }
        "operation" => {
            let kind = value.parse::<OperationKind>();
            wanted.operation = Some(kind.map_err(|error| FieldError::new(name, error.to_string()))?);
        }
        "model" => wanted.model = Some(value.to_owned()),
        "since_ms" => wanted.since_ms = Some(number(name, value, "milliseconds since 1970")?),
        "until_ms" => wanted.until_ms = Some(number(name, value, "milliseconds since 1970")?),
        "cursor" => wanted.after = Some(number(name, value, "the `next_cursor` of another answer")?),
        "limit" => {
            let range = format!("{}..={}", LIMITS.start(), LIMITS.end());
            let limit = number(name, value, &range)?;
            if !LIMITS.contains(&limit) {
                return Err(FieldError::new(name, format!("{limit} is outside {range}")).with_limit(range));
            }
            wanted.limit = Some(limit);
        }
        "order" => {
            wanted.order = match value {
                "oldest" => Order::Oldest,
                "newest" => Order::Newest,
                _ => {
                    let message = format!("`{value}` is no order");
                    return Err(FieldError::new(name, message).with_limit("oldest, newest"));
                }
            }
        }
        _ => {
            return Err(FieldError::new(
                field(name),
                format!("is no parameter of this address; known: {PARAMETERS}"),
            ));
        }
    }
    Ok(())
}

fn number<T: FromStr>(name: &str, value: &str, limit: impl Display) -> Result<T, FieldError> {
    value.parse().map_err(|_| FieldError::new(name, format!("`{value}` is not {limit}")).with_limit(limit))
}
