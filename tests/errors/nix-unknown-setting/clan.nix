{
  instances = {
    vpn = {
      module.name = "wireguard";
      roles.controller.machines.server1.settings.enpoint = "vpn1.example.com";
      roles.peer.machines.laptop1 = { };
    };
  };
}
