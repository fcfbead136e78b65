# What Warren reads of a clan.nix: `tree`, which JSON can say, and `places`, where its keys are written.
#
# A clan's file holds much that cannot be printed (functions, paths, whole configurations), so that only what matters is
# looked at. Nothing of nixpkgs is used: it may not be there.
{
  path, # of the file, absolute, as text
  modules, # whose instances are ours
}:
let
  inherit (builtins)
    attrNames
    dirOf
    elem
    elemAt
    filter
    functionArgs
    intersectAttrs
    isAttrs
    isFunction
    isInt
    isList
    length
    listToAttrs
    mapAttrs
    pathExists
    readDir
    removeAttrs
    toString
    tryEval
    typeOf
    unsafeGetAttrPos
    ;

  only = names: set: intersectAttrs (listToAttrs (map (name: { inherit name; value = null; }) names)) set;
  filterAttrs = keep: set: only (filter (name: keep set.${name}) (attrNames set)) set;
  ifAny = condition: set: if condition then set else { };

  given = import path;

  # Arguments are made up: a file that only hands them on to configurations never looks at them.
  arguments = mapAttrs (name: _: throw "its argument `${name}` is something that Warren does not have") (
    filterAttrs (hasDefault: !hasDefault) (functionArgs given)
  );

  called = if isFunction given then given arguments else given;
  clan = if isAttrs called then called else throw "it is not a set of attributes";
  isWrapped = clan ? inventory;
  inventory = if isWrapped then clan.inventory else clan;

  printable =
    value:
    if isFunction value then
      "«function»"
    else if typeOf value == "path" then
      toString value
    else if isList value then
      map printable value
    else if !isAttrs value then
      value
    else if (value.type or null) == "derivation" then
      "«derivation»"
    else
      mapAttrs (_: printable) value;

  # clan makes a machine of every folder in machines/.
  machinesFolder = dirOf path + "/machines";
  inFolder = ifAny (pathExists machinesFolder) (filterAttrs (kind: kind == "directory") (readDir machinesFolder));

  # At the top of a whole clan stand configurations, of which the names matter; else machines, or both.
  atTop = mapAttrs (
    _: machine:
    ifAny (!isWrapped && (tryEval (isAttrs machine)).value) (
      printable (only [ "tags" "deploy" "description" "managed" ] machine)
    )
  ) (clan.machines or { });

  # In a clan, every machine is tagged with its class as well.
  tagged =
    machine:
    if isWrapped && isAttrs machine && isList (machine.tags or [ ]) then
      machine // { tags = (machine.tags or [ ]) ++ [ (machine.machineClass or "nixos") ]; }
    else
      machine;

  machines = mapAttrs (_: tagged) (
    mapAttrs (_: _: { }) inFolder // atTop // ifAny isWrapped (printable (inventory.machines or { }))
  );

  # An instance that is no set, or whose module is none, is ours to complain about.
  isOurs =
    name: instance:
    !isAttrs instance || !isAttrs (instance.module or { }) || elem (instance.module.name or name) modules;

  instance =
    name: value:
    if !isOurs name value then
      { module = only [ "name" ] (value.module or { }); }
    else if isAttrs value && isAttrs (value.roles or null) then
      printable (value // { roles = mapAttrs (_: withoutModules) value.roles; })
    else
      printable value;

  withoutModules = role: if isAttrs role then removeAttrs role [ "extraModules" ] else role;

  instances =
    if isAttrs inventory.instances then mapAttrs instance inventory.instances else printable inventory.instances;

  meta = printable (only [ "name" "description" ] ((clan.meta or { }) // (inventory.meta or { })));

  # Tags that a function computes need all of clan; what clan itself prints has them with the machines.
  tags = ifAny (isAttrs (inventory.tags or null)) { tags = printable inventory.tags; };

  # Other keys of an inventory are shown to be there; beside one, anything may stand.
  others = ifAny isWrapped (mapAttrs (_: _: null) (removeAttrs inventory [ "tags" ]));

  inner =
    others
    // tags
    // ifAny (clan ? meta || inventory ? meta) { inherit meta; }
    // ifAny (machines != { } || inventory ? machines) { inherit machines; }
    // ifAny (inventory ? instances) { inherit instances; };

  # Where the last key of `keys` that is written somewhere stands, and how many keys that is; null: nowhere.
  place =
    keys:
    let
      step =
        value: depth: found:
        let
          key = elemAt keys depth;
          position = unsafeGetAttrPos key value;
          here = if position == null then found else position // { depth = depth + 1; };
        in
        if depth == length keys then
          found
        else if isInt key then
          if isList value && key < length value then step (elemAt value key) (depth + 1) found else found
        else if isAttrs value && value ? ${key} then
          step value.${key} (depth + 1) here
        else
          found;
    in
    step clan 0 null;
in
{
  tree = if isWrapped then { inventory = inner; } else inner;
  places = map place;
}
