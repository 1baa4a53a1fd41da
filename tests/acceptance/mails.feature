Feature: Mails
  People are written to at each step that matters to them, once, and not about what they have switched off.

  Background:
    Given Ada is a customer
    And Sue works in support
    And there are 10 lamps at 12.50 EUR each

  Scenario: From registration to refund each step is one mail
    Given Ada has ordered 2 lamps
    And Ada has paid with a good card
    And Sue has shipped the order
    And Sue has noted that it arrived
    When Sue refunds the order
    Then Ada gets these mails and no others: Welcome, We have your order, Your order is on its way, Your order has arrived, Your money is on its way back

  Scenario: What somebody has switched off they do not get
    Given Ada has switched off mails about arrivals
    And Ada has ordered 2 lamps
    And Ada has paid with a good card
    And Sue has shipped the order
    And Sue has noted that it arrived
    When Sue refunds the order
    Then Ada gets these mails and no others: Welcome, We have your order, Your order is on its way, Your money is on its way back

  Scenario: A mail about a shipment says how to follow it
    Given Ada has ordered 2 lamps
    And Ada has paid with a good card
    When Sue ships the order
    Then the mail "Your order is on its way" to Ada says "JD0146"

  Scenario: Mails that belong to the course of an order cannot be switched off
    Then Ada can switch off mails about arrivals and the welcome alone
