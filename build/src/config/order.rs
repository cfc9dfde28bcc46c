//! `after`: whom services wait for.

use std::collections::BTreeMap;

use super::decode::shown;
use super::nearest::nearest;
use super::{Config, ConfigError, Container, Fault};

/// Every name is a service's, and no service waits for itself, be it by way of others.
///
/// # Errors
/// [`Fault::UnknownService`], [`Fault::Circle`].
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let services = &config.services;
    let numbers: BTreeMap<&str, usize> =
        services.iter().enumerate().map(|(number, service)| (service.name.as_str(), number)).collect();
    for after in services.iter().flat_map(|service| &service.after) {
        if !numbers.contains_key(after.name.as_str()) {
            let known: Vec<&str> = numbers.keys().copied().collect();
            let fault = Fault::UnknownService {
                name: shown(&after.name),
                nearest: nearest(&after.name, &known).map(str::to_owned),
                onboot: config.onboot.iter().any(|container| container.name == after.name),
            };
            return Err(ConfigError { fault, place: Box::new(after.place.clone()) });
        }
    }
    let next =
        |number: usize| services[number].after.iter().filter_map(|after| numbers.get(after.name.as_str())).copied();
    let (mut done, mut on_path) = (vec![false; services.len()], vec![false; services.len()]);
    for start in 0..services.len() {
        if let Some(path) = circle(start, &next, &mut done, &mut on_path) {
            return Err(error(services, &path));
        }
    }
    Ok(())
}

/// The services of a circle that is found from `start`, each waiting for the one behind it and the last for the first.
/// Walks without recursion: a configuration may have many thousand services in one row.
fn circle<I: Iterator<Item = usize>>(
    start: usize,
    next: &impl Fn(usize) -> I,
    done: &mut [bool],
    on_path: &mut [bool],
) -> Option<Vec<usize>> {
    if done[start] {
        return None;
    }
    on_path[start] = true;
    let mut path = vec![(start, next(start))];
    while let Some((number, waits)) = path.last_mut() {
        match waits.next() {
            Some(other) if on_path[other] => {
                let numbers = path.iter().map(|(number, _)| *number);
                return Some(numbers.skip_while(|number| *number != other).collect());
            }
            Some(other) if done[other] => {}
            Some(other) => {
                on_path[other] = true;
                path.push((other, next(other)));
            }
            None => {
                done[*number] = true;
                on_path[*number] = false;
                path.pop();
            }
        }
    }
    None
}

fn error(services: &[Container], circle: &[usize]) -> ConfigError {
    let first = &services[circle[0]];
    let second = &services[circle[1 % circle.len()]].name;
    let around = circle.iter().chain(circle.first()).map(|number| shown(&services[*number].name)).collect();
    let place = first.after.iter().find(|after| after.name == *second).map_or(&first.place, |after| &after.place);
    ConfigError { fault: Fault::Circle { services: around }, place: Box::new(place.clone()) }
}
