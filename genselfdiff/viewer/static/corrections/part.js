export function plug() {
  return {};
}
