// What a gateway on Azure needs: a network, an account for the tables, an identity with no more rights than it uses, and a
// machine for the gateway itself.
//
//   az deployment group create -g boxpool -f main.bicep -p adminKey="$(cat ~/.ssh/id_ed25519.pub)" usersFrom=203.0.113.0/24

@description('Where everything is.')
param location string = resourceGroup().location

@description('The pool: 1 to 16 lower-case letters and digits, a letter first.')
@minLength(1)
@maxLength(16)
param pool string = 'boxpool'

@description('The SSH public key that enters the gateway machine, for its operator.')
param adminKey string

@description('Who may reach the gateway, in CIDR notation. Nobody else can.')
param usersFrom string

@description('From where the operator enters the gateway machine, in CIDR notation.')
param adminFrom string = usersFrom

@description('Size of the gateway machine.')
param gatewaySize string = 'Standard_B2s'

var unique = uniqueString(resourceGroup().id, pool)

// Users reach port 2222 of the gateway; only the gateway reaches the machines, on port 22; machines reach nobody inside.
resource gatewayRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: '${pool}-gateway'
  location: location
  properties: {
    securityRules: [
      {
        name: 'users'
        properties: { priority: 100, direction: 'Inbound', access: 'Allow', protocol: 'Tcp', sourceAddressPrefix: usersFrom, sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '2222' }
      }
      {
        name: 'operator'
        properties: { priority: 110, direction: 'Inbound', access: 'Allow', protocol: 'Tcp', sourceAddressPrefix: adminFrom, sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '22' }
      }
    ]
  }
}

resource hostRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: '${pool}-hosts'
  location: location
  properties: {
    securityRules: [
      {
        name: 'gateway'
        properties: { priority: 100, direction: 'Inbound', access: 'Allow', protocol: 'Tcp', sourceAddressPrefix: '10.20.0.0/24', sourcePortRange: '*', destinationAddressPrefix: '10.20.16.0/20', destinationPortRange: '22' }
      }
      {
        name: 'nobody-else'
        properties: { priority: 200, direction: 'Inbound', access: 'Deny', protocol: '*', sourceAddressPrefix: '*', sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '*' }
      }
      {
        name: 'nothing-inside'
        properties: { priority: 100, direction: 'Outbound', access: 'Deny', protocol: '*', sourceAddressPrefix: '*', sourcePortRange: '*', destinationAddressPrefix: 'VirtualNetwork', destinationPortRange: '*' }
      }
    ]
  }
}

// Machines fetch packages when they are not made of an image that has them; new networks have no way out of their own.
resource outbound 'Microsoft.Network/publicIPAddresses@2024-05-01' = {
  name: '${pool}-out'
  location: location
  sku: { name: 'Standard' }
  properties: { publicIPAllocationMethod: 'Static' }
}

resource nat 'Microsoft.Network/natGateways@2024-05-01' = {
  name: '${pool}-out'
  location: location
  sku: { name: 'Standard' }
  properties: { publicIpAddresses: [ { id: outbound.id } ], idleTimeoutInMinutes: 4 }
}

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' = {
  name: '${pool}-net'
  location: location
  properties: {
    addressSpace: { addressPrefixes: [ '10.20.0.0/16' ] }
    subnets: [
      {
        name: 'gateway'
        properties: { addressPrefix: '10.20.0.0/24', networkSecurityGroup: { id: gatewayRules.id }, defaultOutboundAccess: false, natGateway: { id: nat.id }, serviceEndpoints: [ { service: 'Microsoft.Storage' } ] }
      }
      {
        name: 'hosts'
        properties: { addressPrefix: '10.20.16.0/20', networkSecurityGroup: { id: hostRules.id }, defaultOutboundAccess: false, natGateway: { id: nat.id } }
      }
    ]
  }
}

// Tables only; no keys, no public access; reachable from the gateway's subnet.
resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: 'bp${unique}'
  location: location
  sku: { name: 'Standard_ZRS' }
  kind: 'StorageV2'
  properties: {
    allowSharedKeyAccess: false
    allowBlobPublicAccess: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    networkAcls: {
      defaultAction: 'Deny'
      bypass: 'None'
      virtualNetworkRules: [ { id: '${network.id}/subnets/gateway', action: 'Allow' } ]
    }
  }
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${pool}-gateway'
  location: location
}

// What the gateway does, action by action, in this group and nowhere else.
resource role 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, pool, 'gateway')
  properties: {
    roleName: 'boxpool gateway ${pool} ${unique}'
    description: 'Makes, starts, stops and deletes the machines, disks, snapshots and images of a pool.'
    type: 'CustomRole'
    assignableScopes: [ resourceGroup().id ]
    permissions: [
      {
        actions: [
          'Microsoft.Compute/virtualMachines/read'
          'Microsoft.Compute/virtualMachines/instanceView/read'
          'Microsoft.Compute/virtualMachines/write'
          'Microsoft.Compute/virtualMachines/delete'
          'Microsoft.Compute/virtualMachines/start/action'
          'Microsoft.Compute/virtualMachines/deallocate/action'
          'Microsoft.Compute/virtualMachines/attachDetachDataDisks/action'
          'Microsoft.Compute/disks/read'
          'Microsoft.Compute/disks/write'
          'Microsoft.Compute/disks/delete'
          'Microsoft.Compute/disks/beginGetAccess/action'
          'Microsoft.Compute/snapshots/read'
          'Microsoft.Compute/snapshots/write'
          'Microsoft.Compute/snapshots/delete'
          'Microsoft.Compute/virtualMachines/generalize/action'
          'Microsoft.Compute/images/read'
          'Microsoft.Compute/images/write'
          'Microsoft.Compute/images/delete'
          'Microsoft.Compute/locations/operations/read'
          'Microsoft.Compute/locations/diskOperations/read'
          'Microsoft.Compute/locations/usages/read'
          'Microsoft.Network/networkInterfaces/read'
          'Microsoft.Network/networkInterfaces/write'
          'Microsoft.Network/networkInterfaces/join/action'
          'Microsoft.Network/networkInterfaces/delete'
          'Microsoft.Network/virtualNetworks/subnets/read'
          'Microsoft.Network/virtualNetworks/subnets/join/action'
          'Microsoft.Network/networkSecurityGroups/join/action'
          'Microsoft.Resources/subscriptions/resourceGroups/read'
          'Microsoft.Authorization/permissions/read'
        ]
        notActions: []
      }
    ]
  }
}

resource mayRunMachines 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(resourceGroup().id, identity.id, role.id)
  properties: { principalId: identity.properties.principalId, principalType: 'ServicePrincipal', roleDefinitionId: role.id }
}

// Storage Table Data Contributor, on this account alone.
resource mayUseTables 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, identity.id, 'tables')
  scope: account
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3')
  }
}

resource address 'Microsoft.Network/publicIPAddresses@2024-05-01' = {
  name: '${pool}-gateway'
  location: location
  sku: { name: 'Standard' }
  properties: { publicIPAllocationMethod: 'Static', dnsSettings: { domainNameLabel: '${pool}-${unique}' } }
}

resource interface 'Microsoft.Network/networkInterfaces@2024-05-01' = {
  name: '${pool}-gateway'
  location: location
  properties: {
    ipConfigurations: [
      {
        name: 'main'
        properties: { subnet: { id: '${network.id}/subnets/gateway' }, publicIPAddress: { id: address.id } }
      }
    ]
  }
}

resource gateway 'Microsoft.Compute/virtualMachines@2024-07-01' = {
  name: '${pool}-gateway'
  location: location
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identity.id}': {} } }
  properties: {
    hardwareProfile: { vmSize: gatewaySize }
    storageProfile: {
      imageReference: { publisher: 'Debian', offer: 'debian-12', sku: '12-gen2', version: 'latest' }
      osDisk: { createOption: 'FromImage', managedDisk: { storageAccountType: 'StandardSSD_LRS' }, deleteOption: 'Delete' }
    }
    osProfile: {
      computerName: '${pool}-gateway'
      adminUsername: 'operator'
      linuxConfiguration: {
        disablePasswordAuthentication: true
        ssh: { publicKeys: [ { path: '/home/operator/.ssh/authorized_keys', keyData: adminKey } ] }
      }
    }
    networkProfile: { networkInterfaces: [ { id: interface.id } ] }
  }
}

@description('Where users connect: ssh -p 2222 dev1@…')
output host string = address.properties.dnsSettings.fqdn

@description('The lines for [azure] in the gateway\'s configuration.')
output config string = 'subscription = "${subscription().subscriptionId}"\nresource_group = "${resourceGroup().name}"\nlocation = "${location}"\npool = "${pool}"\nstorage_account = "${account.name}"\ncredential = "managed_identity:${identity.properties.clientId}"\nsubnet = "${network.id}/subnets/hosts"\n'
